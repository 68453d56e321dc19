"""Vectors of quantized builds: close to those of the source, and equal to those of quantization while loading."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine_svc.build.calibration import Calibration, calibrate
from engine_svc.build.quantizer import make_quantizer
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import locate
from tests.engine_svc.build.quantized_folders import quantize, random_sequences, write_quantized
from tests.engine_svc.models.packed import random_batch
from tests.engine_svc.models.quantized_checkpoints import least_cosine, vectors
from tests.engine_svc.models.trained_like import DECODERS, write_decoder


@pytest.mark.parametrize(
    ("quantization", "closeness"),
    [
        ("fp8", 0.998),
        ("fp8_kv", 0.998),
        ("fp8_mlp_only", 0.999),
        ("fp4", 0.99),
        ("fp4_kv", 0.99),
        ("fp4_mlp_only", 0.997),
    ],
)
def test_vectors_stay_near_those_of_the_source(
    decoder: Path, tmp_path: Path, calibration: Calibration, quantization: str, closeness: float
) -> None:
    quantize(decoder, tmp_path / "built", quantization, calibration)
    batch = random_batch((1, 3, 8, 17, 33))
    ours = vectors(Checkpoint.read(tmp_path / "built"), batch, "no_quant", "float32")
    theirs = vectors(Checkpoint.read(decoder), batch, "no_quant", "float32")
    assert closeness <= least_cosine(ours, theirs) < 0.99999


def add_outliers(folder: Path, factor: float) -> None:
    """Scales some input channels of linears up and their weight columns down, which keeps the outputs."""
    tensors = load_file(folder / "model.safetensors")
    channels = torch.tensor([5, 70, 111])
    for name, tensor in tensors.items():
        if "input_layernorm" in name or "post_attention_layernorm" in name:
            tensor[channels] *= factor
        elif name.rpartition(".")[0].endswith(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")):
            tensor[:, channels] /= factor
    save_file(tensors, folder / "model.safetensors")


def test_smooth_quant_beats_weights_int8_where_inputs_have_outliers(tmp_path: Path) -> None:
    source, batch = tmp_path / "source", random_batch((1, 3, 8, 17, 33))
    write_decoder(source, DECODERS[0])
    plain = vectors(Checkpoint.read(source), batch, "no_quant", "float32")
    add_outliers(source, 64)
    checkpoint = Checkpoint.read(source)
    exact = vectors(checkpoint, batch, "no_quant", "float32")
    assert least_cosine(exact, plain) > 0.99999
    calibration = calibrate(checkpoint, random_sequences(checkpoint.vocabulary_size), devices=["cpu"])
    errors = {}
    for quantization in ("weights_int8", "smooth_quant"):
        quantizer = make_quantizer(quantization, checkpoint, calibration)
        built = Checkpoint.read(write_quantized(source, tmp_path / quantization, quantizer))
        errors[quantization] = 1 - least_cosine(vectors(built, batch, "no_quant", "float32"), exact)
    assert errors["smooth_quant"] < 0.005
    assert errors["smooth_quant"] < errors["weights_int8"] / 4


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["weights_int8", "smooth_quant"])
def test_an_encoder_in_int8_stays_near_its_vectors(tmp_path: Path, quantization: str) -> None:
    checkpoint = Checkpoint.read(locate("all-MiniLM-L6-v2"))
    tokens = random_sequences(checkpoint.vocabulary_size, count=24)
    calibration = calibrate(checkpoint, tokens, devices=["cpu"], dtype="float32")
    folder = write_quantized(
        checkpoint.folder, tmp_path / "built", make_quantizer(quantization, checkpoint, calibration)
    )
    batch = random_batch((3, 8, 17, 33), vocabulary_size=checkpoint.vocabulary_size)
    exact = vectors(checkpoint, batch, "no_quant", "float32")
    assert least_cosine(vectors(Checkpoint.read(folder), batch, "no_quant", "float32"), exact) > 0.99


@pytest.mark.parametrize("quantization", ["fp8", "fp8_mlp_only", "fp4", "fp4_mlp_only", "weights_int8"])
def test_a_build_equals_what_the_engine_quantizes_while_it_loads(
    decoder: Path, tmp_path: Path, calibration: Calibration, quantization: str
) -> None:
    quantize(decoder, tmp_path / "built", quantization, calibration)
    batch = random_batch((1, 5, 17))
    ours = vectors(Checkpoint.read(tmp_path / "built"), batch, "no_quant", "float32")
    theirs = vectors(Checkpoint.read(decoder), batch, quantization, "float32")
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
