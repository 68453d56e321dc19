"""Whole models with weights in FP8 and FP4: how near their vectors are to those in 16 bit, alone as in a batch, in how
much memory, and from checkpoints in the layout of NVIDIA's ModelOpt."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3Model,
)

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.batch import PackedBatch
from engine_svc.models.float8 import FLOAT8
from engine_svc.models.model import Model
from engine_svc.models.quantized_linear import Float4Linear, Float8Linear
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.model_source import locate
from tests.checkpoints import write_json
from tests.engine_svc.models import gpu_products
from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.cases_of.decoders import SMALL
from tests.engine_svc.models.packed import random_batch
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed, run_each, sequences_of
from tests.texts import varied_texts

CPU = torch.device("cpu")

Vectors = Sequence[np.ndarray[Any, np.dtype[np.float32]]]

# One embedder of each.
ARCHITECTURES = ("bert", "gemma2", "gte", "jina-bert", "llama", "mistral", "modernbert", "qwen3")
EMBEDDERS = [
    next(case for case in CASES if case.architecture == name and case.kind is ModelKind.EMBEDDER)
    for name in ARCHITECTURES
]

# Larger than a parity case, so that widths are not all of one block.
SIZES: dict[str, Any] = {**SMALL, "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 256}
DECODERS: Sequence[tuple[type[PreTrainedModel], type[PreTrainedConfig]]] = (
    (LlamaModel, LlamaConfig),
    (MistralModel, MistralConfig),
    (Qwen3Model, Qwen3Config),
    (Gemma2Model, Gemma2Config),
)


def vectors(checkpoint: Checkpoint, batch: PackedBatch, quantization: str, dtype: str = "bfloat16") -> Vectors:
    return list(run_each(TorchBackend(checkpoint, dtype=dtype, device="cpu", quantization=quantization), batch))


def least_cosine(ours: Vectors, theirs: Vectors) -> float:
    return min(
        float(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))
        for one, other in zip(ours, theirs, strict=True)
    )


def write_decoder(folder: Path, made_of: tuple[type[PreTrainedModel], type[PreTrainedConfig]]) -> PreTrainedModel:
    """As trained models are, and random ones are not: each layer changes the hidden states by a little."""
    model_class, config_class = made_of
    torch.manual_seed(0)
    model = model_class(config_class(**{**SIZES, "head_dim": 32}))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=1.0 if "embed" in name else parameter.shape[1] ** -0.5)
            if "o_proj" in name or "down_proj" in name:
                parameter.data *= (2 * SIZES["num_hidden_layers"]) ** -0.5
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("case", EMBEDDERS, ids=lambda case: case.architecture)
def test_vectors_in_fp8_point_where_those_in_16_bit_do(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path)
    checkpoint = Checkpoint.read(tmp_path)
    batch = random_batch(case.lengths, with_types=case.has_types, vocabulary_size=checkpoint.vocabulary_size)
    expected = vectors(checkpoint, batch, "no_quant")
    assert least_cosine(vectors(checkpoint, batch, "fp8"), expected) >= 0.99
    # Four bits are few for weights without any structure.
    assert least_cosine(vectors(checkpoint, batch, "fp4"), expected) >= 0.92


@pytest.mark.parametrize("made_of", DECODERS, ids=lambda made_of: made_of[0].__name__)
@pytest.mark.parametrize(("quantization", "closeness"), [("fp8", 0.99), ("fp4", 0.98)])
def test_decoders_stay_near_their_vectors_in_16_bit(
    tmp_path: Path, made_of: Any, quantization: str, closeness: float
) -> None:
    write_decoder(tmp_path, made_of)
    checkpoint, batch = Checkpoint.read(tmp_path), random_batch((1, 3, 8, 17, 33))
    assert least_cosine(vectors(checkpoint, batch, quantization), vectors(checkpoint, batch, "no_quant")) >= closeness


@pytest.mark.parametrize(("quantization", "closeness"), [("fp8", 0.99), ("fp4", 0.92)])
def test_trained_weights_stay_near_their_vectors_in_16_bit(quantization: str, closeness: float) -> None:
    """all-MiniLM-L6-v2 by itself: the settings refuse to quantize encoders, which lose most by it."""
    checkpoint = Checkpoint.read(locate("all-MiniLM-L6-v2"))
    tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(checkpoint.sequence_tokens_max)
    encodings = tokenizer.encode_batch(varied_texts(40))
    batch = packed([TokenSequence(np.array(encoding.ids, "<u4").tobytes()) for encoding in encodings])
    ours, theirs = vectors(checkpoint, batch, quantization), vectors(checkpoint, batch, "no_quant")
    assert least_cosine(ours, theirs) >= closeness


@pytest.mark.parametrize("quantization", ["fp8", "fp4"])
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
        assert least_cosine([alone], [together[index]]) > 0.99999 if not native else 0.999


@pytest.mark.parametrize(("quantization", "bytes_per_weight"), [("fp8", 1.0), ("fp4", 0.5625)])
def test_weights_take_as_many_bytes_as_their_format(tmp_path: Path, quantization: str, bytes_per_weight: float) -> None:
    """Beside the scale of each output, of 4 bytes. Embeddings and norms keep their type."""
    write_decoder(tmp_path, DECODERS[0])
    model = Model.load(Checkpoint.read(tmp_path), dtype=torch.bfloat16, device=CPU, quantization=quantization)
    assert model.transformer.embeddings.words.dtype == torch.bfloat16
    for layer in model.transformer.layers:
        attention, feed_forward = layer.attention, layer.feed_forward
        for linear in (attention.query_key_value, attention.output, feed_forward.gate_up, feed_forward.down):  # type: ignore[attr-defined]
            assert isinstance(linear, Float8Linear | Float4Linear)
            columns = [getattr(linear.weight, field.name) for field in dataclasses.fields(linear.weight)]
            outputs = len(columns[0])
            inputs = columns[0].shape[1] * (1 if quantization == "fp8" else 2)
            size = sum(column.untyped_storage().nbytes() for column in columns) - 4 * outputs
            assert size == bytes_per_weight * outputs * inputs


def fp8_of(weight: Tensor) -> dict[str, Tensor]:
    scale = weight.abs().max() / 448
    return {"weight": (weight / scale).to(FLOAT8), "weight_scale": scale, "input_scale": torch.tensor(0.01)}


def fp8_by_channel_of(weight: Tensor) -> dict[str, Tensor]:
    scales = weight.abs().amax(1) / 448
    return {"weight": (weight / scales[:, None]).to(FLOAT8), "weight_scale": scales}


def nvfp4_of(weight: Tensor) -> dict[str, Tensor]:
    """Written from the description of the layout: the lower bits first, a scale for each 16 numbers, one for all."""
    levels = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    overall = weight.abs().max() / (6 * 448)
    blocks = weight.view(len(weight), -1, 16)
    scales = (blocks.abs().amax(2) / 6 / overall).to(FLOAT8)
    scaled = blocks / (scales.float() * overall)[..., None]
    codes = (scaled.abs()[..., None] - levels).abs().argmin(-1) + 8 * (scaled < 0)
    codes = codes.view(weight.shape).to(torch.uint8)
    packed = codes[:, 0::2] + 16 * codes[:, 1::2]
    return {"weight": packed, "weight_scale": scales, "weight_scale_2": overall, "input_scale": torch.tensor(0.01)}


@pytest.mark.parametrize(
    ("algorithm", "quantization", "stored_form"),
    [
        ("FP8", "fp8", fp8_of),
        ("FP8_PER_CHANNEL_PER_TOKEN", "fp8", fp8_by_channel_of),
        ("NVFP4", "fp4", nvfp4_of),
    ],
)
def test_checkpoint_of_modelopt_equals_one_that_is_quantized_here(
    tmp_path: Path, algorithm: str, quantization: str, stored_form: Callable[[Tensor], dict[str, Tensor]]
) -> None:
    """In every row the largest number is the same, so scales of rows are those of the tensor. One layer is excluded."""
    plain, stored = tmp_path / "plain", tmp_path / "stored"
    for folder in (plain, stored):
        write_decoder(folder, DECODERS[2])
        tensors = load_file(folder / "model.safetensors")
        for name, tensor in tensors.items():
            if "_proj" in name:
                tensors[name] = tensor / tensor.abs().amax(1, keepdim=True) * 0.25
        save_file(tensors, folder / "model.safetensors")
    quantized: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = stored_form(tensor) if "_proj" in name else {"weight": tensor}
        quantized |= {name.removesuffix("weight") + part: own.contiguous() for part, own in parts.items()}
    save_file(quantized, stored / "model.safetensors")
    write_json(
        stored / "hf_quant_config.json", {"quantization": {"quant_algo": algorithm, "exclude_modules": ["lm_head"]}}
    )
    batch = random_batch((1, 5, 17))
    ours = vectors(Checkpoint.read(plain), batch, quantization, "float32")
    theirs = vectors(Checkpoint.read(stored), batch, "no_quant", "float32")
    assert least_cosine(ours, vectors(Checkpoint.read(plain), batch, "no_quant", "float32")) < 0.99999
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_modules_that_modelopt_excluded_stay_as_they_are(tmp_path: Path) -> None:
    write_decoder(tmp_path, DECODERS[0])
    tensors = load_file(tmp_path / "model.safetensors")
    name = "layers.0.mlp.down_proj"
    tensors |= {f"{name}.{part}": own for part, own in fp8_of(tensors[f"{name}.weight"]).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    write_json(tmp_path / "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}})
    model = Model.load(Checkpoint.read(tmp_path), dtype=torch.float32, device=CPU)
    first, second = (layer.feed_forward for layer in model.transformer.layers[:2])
    assert isinstance(first.down, Float8Linear)  # type: ignore[attr-defined]
    assert not isinstance(second.down, Float8Linear)  # type: ignore[attr-defined]
