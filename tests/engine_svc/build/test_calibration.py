"""Calibration records the same magnitudes as hooks on a transformers model, on any number of cores and devices."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from engine_svc.build import sample_texts
from engine_svc.build.calibration import Calibration, calibrate
from engine_svc.build.sample_texts import make_batches
from engine_svc.sequences import Sequences
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.model_source import locate
from tests.engine_svc.build.quantized_folders import random_sequences
from tests.engine_svc.models.trained_like import DECODERS, write_decoder

MODEL, GEMMA = DECODERS[2], DECODERS[3]


def texts_of(sequences: Sequences) -> Sequence[Tensor]:
    return [
        torch.tensor(sequences.token_ids[start:stop].astype(np.int64))[None]
        for start, stop in pairwise(sequences.starts.tolist())
    ]


@torch.inference_mode()
def measure_with_hooks(model: PreTrainedModel, texts: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[list[float]]]:
    """Returns the largest input of each channel by linear, and the largest cached key and value of each layer."""
    largest: dict[str, Tensor] = {}
    cached = [[0.0, 0.0] for _ in range(model.config.num_hidden_layers)]

    def hook(name: str) -> Any:
        def record(_module: torch.nn.Module, inputs: tuple[Tensor]) -> None:
            channels = inputs[0].detach().abs().flatten(0, -2).amax(0)
            largest[name] = torch.maximum(largest.get(name, channels), channels)

        return record

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(hook(name))
    for text in texts:
        cache = model(input_ids=text, use_cache=True).past_key_values
        for numbers, layer in zip(cached, cache.layers, strict=True):
            numbers[0] = max(numbers[0], float(layer.keys.abs().max()))
            numbers[1] = max(numbers[1], float(layer.values.abs().max()))
    return largest, cached


@pytest.mark.parametrize("made_of", [MODEL, GEMMA], ids=lambda made_of: made_of[0].__name__)
def test_magnitudes_equal_those_of_transformers(tmp_path: Path, made_of: Any) -> None:
    """Qwen3 normalizes and rotates keys before it caches them."""
    model = write_decoder(tmp_path, made_of)
    checkpoint = Checkpoint.read(tmp_path)
    sequences = random_sequences(checkpoint.vocabulary_size)
    calibration = calibrate(checkpoint, sequences, devices=["cpu"], dtype="float32")
    largest, cached = measure_with_hooks(model, texts_of(sequences))
    for name, inputs in calibration.inputs.items():
        np.testing.assert_allclose(inputs.largest, largest[name], rtol=1e-3, atol=1e-4)
    assert len(calibration.inputs) == 4 * len(cached)
    for index, (key, value) in enumerate(cached):
        group = f"layers.{index}.self_attn.q_proj"
        assert calibration.keys[group] == pytest.approx(key, rel=1e-3)
        assert calibration.values[group] == pytest.approx(value, rel=1e-3)
    assert (calibration.texts, calibration.tokens) == (len(sequences), sequences.tokens)


def assert_equal(one: Calibration, other: Calibration) -> None:
    assert one.inputs.keys() == other.inputs.keys()
    assert (one.keys, one.values) == (other.keys, other.values)
    for name, inputs in one.inputs.items():
        assert torch.equal(inputs.largest, other.inputs[name].largest)
        assert torch.equal(inputs.samples, other.inputs[name].samples)


def test_results_do_not_depend_on_cores_or_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices each have a copy of a trained encoder and run some of the batches."""
    monkeypatch.setattr(sample_texts, "BATCH_TOKENS", 64)
    checkpoint = Checkpoint.read(locate("all-MiniLM-L6-v2"))
    sequences = random_sequences(checkpoint.vocabulary_size, count=20, longest=32)
    assert len(make_batches(sequences)) > 4
    alone = calibrate(checkpoint, sequences, devices=["cpu"], cores=1)
    assert_equal(alone, calibrate(checkpoint, sequences, devices=["cpu"], cores=3))
    assert_equal(alone, calibrate(checkpoint, sequences, devices=["cpu", "cpu"], cores=2))


def test_the_process_keeps_its_number_of_threads() -> None:
    checkpoint = Checkpoint.read(locate("all-MiniLM-L6-v2"))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        calibrate(checkpoint, random_sequences(checkpoint.vocabulary_size, count=2), devices=["cpu"], cores=2)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_samples_come_from_short_and_long_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_texts, "BATCH_TOKENS", 32)
    write_decoder(tmp_path, DECODERS[0])
    checkpoint = Checkpoint.read(tmp_path)
    sequences = random_sequences(checkpoint.vocabulary_size, count=30)
    inputs = calibrate(checkpoint, sequences, devices=["cpu"]).inputs["layers.0.self_attn.q_proj"]
    assert 128 <= len(inputs.samples) <= 256
    assert inputs.samples.abs().amax(0).float().le(inputs.largest).all()


def test_progress_counts_all_texts(tmp_path: Path) -> None:
    write_decoder(tmp_path, DECODERS[0])
    checkpoint = Checkpoint.read(tmp_path)
    done: list[int] = []
    calibrate(checkpoint, random_sequences(checkpoint.vocabulary_size), devices=["cpu"], progress=done.append)
    assert sum(done) == 40


def test_batches_hold_each_text_once_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_texts, "BATCH_TOKENS", 100)
    sequences = random_sequences(1000, longest=150)
    made = make_batches(sequences)
    assert sorted(np.concatenate([batch.indices for batch in made]).tolist()) == list(range(len(sequences)))
    lengths = np.concatenate([batch.packed.lengths for batch in made])
    assert (lengths[1:] >= lengths[:-1]).all()
    assert all(batch.packed.tokens <= 100 or len(batch.packed) == 1 for batch in made)


def test_overflowing_inputs_raise_one_clear_error(tmp_path: Path) -> None:
    write_decoder(tmp_path, DECODERS[0])
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["layers.2.mlp.up_proj.weight"] *= 1e38
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = Checkpoint.read(tmp_path)
    with pytest.raises(CheckpointError, match=r"the inputs of layers.2.mlp.down_proj become infinite or NaN"):
        calibrate(checkpoint, random_sequences(checkpoint.vocabulary_size), devices=["cpu"], dtype="float16")
