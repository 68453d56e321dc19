"""Whole models with int8 weights, quantized while loading or stored by ModelOpt."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine_svc.models.int8 import Int8Linear, WidenedInt8Linear, dequantize_int8, quantize_to_int8
from engine_svc.models.model import Model
from engine_svc.sequences import Output
from heddle.checkpoint import Checkpoint, ModelKind
from tests.checkpoints import write_json
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.packed import random_batch
from tests.engine_svc.models.quantized_checkpoints import int8_of, least_cosine, smooth_int8_of, vectors, write_stored
from tests.engine_svc.models.trained_like import DECODERS, write_decoder

CPU = torch.device("cpu")


def test_int8_checkpoints_of_modelopt_equal_quantization_while_loading(tmp_path: Path) -> None:
    plain, stored = tmp_path / "plain", tmp_path / "stored"
    for folder in (plain, stored):
        write_decoder(folder, DECODERS[2])
    write_stored(stored, "W8A16", int8_of)
    batch = random_batch((1, 5, 17))
    ours = vectors(Checkpoint.read(plain), batch, "weights_int8", "float32")
    np.testing.assert_array_equal(vectors(Checkpoint.read(stored), batch, "no_quant", "float32"), ours)
    np.testing.assert_array_equal(vectors(Checkpoint.read(stored), batch, "weights_int8", "float32"), ours)


def test_smoothed_checkpoint_of_modelopt_is_near_the_original(tmp_path: Path) -> None:
    plain, stored = tmp_path / "plain", tmp_path / "stored"
    for folder in (plain, stored):
        write_decoder(folder, DECODERS[2])
    write_stored(stored, "W8A8_SQ_PER_CHANNEL", smooth_int8_of)
    checkpoint, batch = Checkpoint.read(stored), random_batch((1, 5, 17))
    expected = vectors(Checkpoint.read(plain), batch, "no_quant")
    assert least_cosine(vectors(checkpoint, batch, "smooth_quant"), expected) >= 0.997
    assert not Model.load(checkpoint, dtype=torch.float32, device=CPU).unused


@pytest.mark.parametrize("kind", [ModelKind.CLASSIFIER, ModelKind.SPARSE_EMBEDDER, ModelKind.RERANKER])
def test_heads_are_not_quantized(kind: ModelKind, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.architecture == "bert" and case.kind is kind)
    case.write(tmp_path)
    model = Model.load(Checkpoint.read(tmp_path), dtype=torch.float32, device=CPU, quantization="weights_int8")
    assert isinstance(model.transformer.layers[0].attention.qkv_proj, Int8Linear | WidenedInt8Linear)
    assert not find_int8(model.head)


def find_int8(part: object) -> bool:
    if isinstance(part, Int8Linear | WidenedInt8Linear):
        return True
    if isinstance(part, Sequence) and not isinstance(part, str):
        return any(find_int8(one) for one in part)
    return dataclasses.is_dataclass(part) and any(
        find_int8(getattr(part, field.name)) for field in dataclasses.fields(part)
    )


def test_deberta_computes_position_projections_from_int8_weights(tmp_path: Path) -> None:
    """DeBERTa multiplies its distance embeddings by these weights once, while loading."""
    case = next(case for case in CASES if case.architecture == "deberta-v2" and case.kind is ModelKind.RERANKER)
    plain, stored = tmp_path / "plain", tmp_path / "stored"
    for folder in (plain, stored):
        case.write(folder)
    exact, quantized = {}, {}
    for name, tensor in load_file(stored / "model.safetensors").items():
        if ".layer." not in name or tensor.ndim != 2:
            exact[name] = quantized[name] = tensor
            continue
        exact[name] = dequantize_int8(quantize_to_int8(tensor), torch.float32)
        quantized |= {name.removesuffix("weight") + part: own for part, own in int8_of(exact[name]).items()}
    save_file(exact, plain / "model.safetensors")
    save_file(quantized, stored / "model.safetensors")
    write_json(stored / "hf_quant_config.json", {"quantization": {"quant_algo": "W8A16"}})
    batch = random_batch(case.lengths, output=Output.LOGITS)
    ours, theirs = (vectors(Checkpoint.read(folder), batch, "weights_int8", "float32") for folder in (plain, stored))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
