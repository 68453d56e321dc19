"""Whole models with quantized weights: how near their vectors are to those in 16 bit, alone as in a batch, in how much
memory, and from checkpoints in the layout of NVIDIA's ModelOpt."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models import int8
from engine_svc.models.architectures.decoder import FAMILIES
from engine_svc.models.int8 import WidenedInt8Linear
from engine_svc.models.linear import PlainLinear
from engine_svc.models.model import Model
from engine_svc.models.quantized_linear import Float4Linear, Float8Linear
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.model_source import locate
from tests.checkpoints import write_json
from tests.engine_svc.models import gpu_products
from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.packed import random_batch
from tests.engine_svc.models.quantized_checkpoints import (
    LEVELS,
    change_linears,
    cosines,
    fp8_by_channel_of,
    fp8_of,
    least_cosine,
    quantize_to_nvfp4,
    vectors,
    write_stored,
)
from tests.engine_svc.models.trained_like import DECODERS, write_decoder
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed, run_each, sequences_of
from tests.texts import varied_texts

CPU = torch.device("cpu")

# One embedder of each.
ARCHITECTURES = ("bert", "gemma2", "gte", "jina-bert", "llama", "mistral", "modernbert", "qwen3")
EMBEDDERS = [
    next(case for case in CASES if case.architecture == name and case.kind is ModelKind.EMBEDDER)
    for name in ARCHITECTURES
]


@pytest.mark.parametrize("case", EMBEDDERS, ids=lambda case: case.architecture)
def test_8_bit_vectors_are_close_to_16_bit_ones(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path)
    checkpoint = Checkpoint.read(tmp_path)
    batch = random_batch(case.lengths, with_types=case.has_types, vocabulary_size=checkpoint.vocabulary_size)
    expected = vectors(checkpoint, batch, "no_quant")
    assert least_cosine(vectors(checkpoint, batch, "fp8"), expected) >= 0.99
    assert least_cosine(vectors(checkpoint, batch, "weights_int8"), expected) >= 0.99
    # In FP4 the mean is 0.980 (Gemma 2) to 0.989 (Qwen3), and the least 0.94: in these models of random weights each
    # layer replaces most of the hidden state, so that the errors of all layers add up. See `write_decoder`.
    if checkpoint.config["model_type"] in FAMILIES:
        assert np.mean(cosines(vectors(checkpoint, batch, "fp4"), expected)) >= 0.975


@pytest.mark.parametrize("made_of", DECODERS, ids=lambda made_of: made_of[0].__name__)
@pytest.mark.parametrize(
    ("quantization", "closeness"),
    [("fp8", 0.99), ("fp8_mlp_only", 0.99), ("fp4", 0.98), ("fp4_mlp_only", 0.98), ("weights_int8", 0.999)],
)
def test_decoders_stay_near_their_vectors_in_16_bit(
    tmp_path: Path, made_of: Any, quantization: str, closeness: float
) -> None:
    write_decoder(tmp_path, made_of)
    checkpoint, batch = Checkpoint.read(tmp_path), random_batch((1, 3, 8, 17, 33))
    assert least_cosine(vectors(checkpoint, batch, quantization), vectors(checkpoint, batch, "no_quant")) >= closeness


@pytest.mark.parametrize(
    ("quantization", "least", "mean"),
    [
        ("weights_int8", 0.975, 0.993),
        pytest.param("fp8", 0.99, 0.995, marks=pytest.mark.slow),
        pytest.param("fp4", 0.9, 0.965, marks=pytest.mark.slow),
    ],
)
def test_an_encoder_stays_near_its_vectors_in_8_bit_but_not_in_4(quantization: str, least: float, mean: float) -> None:
    """all-MiniLM-L6-v2 in FP4 has a mean cosine of 0.969 on these texts and a minimum of 0.91. The settings refuse FP8
    and FP4 for encoders. In int8 the minimum, 0.98, comes from texts without words."""
    checkpoint = Checkpoint.read(locate("all-MiniLM-L6-v2"))
    tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(checkpoint.sequence_tokens_max)
    encodings = tokenizer.encode_batch(varied_texts(40))
    batch = packed([TokenSequence(np.array(encoding.ids, "<u4").tobytes()) for encoding in encodings])
    found = cosines(vectors(checkpoint, batch, quantization), vectors(checkpoint, batch, "no_quant"))
    assert min(found) >= least
    assert np.mean(found) >= mean


@pytest.mark.parametrize("quantization", ["fp8", "fp4", "weights_int8"])
@pytest.mark.parametrize("native", [True, False])
def test_sequence_alone_equals_itself_in_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str, native: bool
) -> None:
    if native:
        gpu_products.install(monkeypatch)
    write_decoder(tmp_path, DECODERS[0])
    backend = TorchBackend(Checkpoint.read(tmp_path), dtype="float32", device="cpu", quantization=quantization)
    batch = random_batch((1, 3, 8, 17, 33, 5, 5))
    together = run_each(backend, batch)
    for index, sequence in enumerate(sequences_of(batch)):
        [alone] = run_each(backend, packed([sequence]))
        # Rounding can tip a number to the next step of FP8 or FP4.
        assert least_cosine([alone], [together[index]]) > (0.999 if native else 0.99999)


@pytest.mark.parametrize(("quantization", "bytes_per_weight"), [("fp8", 1.0), ("fp4", 0.5625), ("weights_int8", 1.0)])
def test_weights_take_the_bytes_of_their_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str, bytes_per_weight: float
) -> None:
    """Beside the scale of each output, of 4 bytes. Embeddings and norms keep their type."""
    monkeypatch.setattr(int8, "has_int8_products", lambda _: False)  # oneDNN's packed weights hide their size
    write_decoder(tmp_path, DECODERS[0])
    model = Model.load(Checkpoint.read(tmp_path), dtype=torch.bfloat16, device=CPU, quantization=quantization)
    assert model.transformer.embeddings.words.dtype == torch.bfloat16
    for layer in model.transformer.layers:
        attention, feed_forward = layer.attention, layer.feed_forward
        for linear in (attention.qkv_proj, attention.o_proj, feed_forward.gate_up_proj, feed_forward.down_proj):  # type: ignore[attr-defined]
            assert isinstance(linear, Float8Linear | Float4Linear | WidenedInt8Linear)
            columns = [getattr(linear.weight, field.name) for field in dataclasses.fields(linear.weight)]
            outputs = len(columns[0])
            inputs = columns[0].shape[1] * (2 if quantization == "fp4" else 1)
            size = sum(column.untyped_storage().nbytes() for column in columns) - 4 * outputs
            assert size == bytes_per_weight * outputs * inputs


@pytest.mark.parametrize(
    ("algorithm", "stored_form"), [("FP8", fp8_of), ("FP8_PER_CHANNEL_PER_TOKEN", fp8_by_channel_of)]
)
def test_fp8_checkpoint_of_modelopt_equals_one_that_is_quantized_here(
    tmp_path: Path, algorithm: str, stored_form: Callable[[Tensor], dict[str, Tensor]]
) -> None:
    """In every row the largest number is the same, so scales of rows are those of the tensor."""
    plain, stored = tmp_path / "plain", tmp_path / "stored"
    for folder in (plain, stored):
        write_decoder(folder, DECODERS[2])
        change_linears(folder, lambda weight: weight / weight.abs().amax(1, keepdim=True) * 0.25)
    write_stored(stored, algorithm, stored_form)
    batch = random_batch((1, 5, 17))
    ours = vectors(Checkpoint.read(plain), batch, "fp8", "float32")
    theirs = vectors(Checkpoint.read(stored), batch, "no_quant", "float32")
    assert least_cosine(ours, vectors(Checkpoint.read(plain), batch, "no_quant", "float32")) < 0.99999
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def nvfp4_and_back(weight: Tensor) -> Tensor:
    stored = quantize_to_nvfp4(weight)
    codes = torch.stack([stored["weight"] & 15, stored["weight"] >> 4], 2).flatten(1).int()
    numbers = LEVELS[codes & 7] * (1 - 2 * (codes >> 3))
    return numbers * stored["weight_scale"].float().repeat_interleave(16, 1) * stored["weight_scale_2"]


def test_nvfp4_checkpoint_of_modelopt_equals_one_with_its_numbers_in_float32(tmp_path: Path) -> None:
    plain, stored = tmp_path / "plain", tmp_path / "stored"
    for folder in (plain, stored):
        write_decoder(folder, DECODERS[2])
    write_stored(stored, "NVFP4", quantize_to_nvfp4)
    batch = random_batch((1, 5, 17))
    theirs = vectors(Checkpoint.read(stored), batch, "no_quant", "float32")
    assert least_cosine(theirs, vectors(Checkpoint.read(plain), batch, "no_quant", "float32")) < 0.999
    change_linears(plain, nvfp4_and_back)
    np.testing.assert_allclose(theirs, vectors(Checkpoint.read(plain), batch, "no_quant", "float32"), atol=1e-5)


def test_modules_that_modelopt_excluded_stay_as_they_are(tmp_path: Path) -> None:
    write_decoder(tmp_path, DECODERS[0])
    tensors = load_file(tmp_path / "model.safetensors")
    name = "layers.0.mlp.down_proj"
    tensors |= {f"{name}.{part}": own for part, own in fp8_of(tensors[f"{name}.weight"]).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    write_json(tmp_path / "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}})
    model = Model.load(Checkpoint.read(tmp_path), dtype=torch.float32, device=CPU)
    first, second = (layer.feed_forward for layer in model.transformer.layers[:2])
    assert isinstance(first.down_proj, Float8Linear)  # type: ignore[attr-defined]
    assert not isinstance(second.down_proj, Float8Linear)  # type: ignore[attr-defined]


@pytest.mark.parametrize("quantization", ["fp8_mlp_only", "fp4_mlp_only"])
def test_mlp_only_keeps_attention_in_16_bit(tmp_path: Path, quantization: str) -> None:
    write_decoder(tmp_path, DECODERS[0])
    model = Model.load(Checkpoint.read(tmp_path), dtype=torch.float32, device=CPU, quantization=quantization)
    for layer in model.transformer.layers:
        assert isinstance(layer.attention.qkv_proj, PlainLinear)
        assert isinstance(layer.attention.o_proj, PlainLinear)
        assert isinstance(layer.feed_forward.gate_up_proj, Float8Linear | Float4Linear)  # type: ignore[attr-defined]
        assert isinstance(layer.feed_forward.down_proj, Float8Linear | Float4Linear)  # type: ignore[attr-defined]
