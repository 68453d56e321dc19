"""Random sequences and folders with quantized weights for tests of builds."""

import shutil
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine_svc.build.calibration import Calibration
from engine_svc.build.quantizer import Quantizer, make_quantizer
from engine_svc.sequences import Sequences
from heddle.checkpoint import Checkpoint
from tests.checkpoints import write_json


def random_sequences(vocabulary_size: int, count: int = 40, longest: int = 48) -> Sequences:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, longest, count)
    return Sequences.of(generator.integers(0, vocabulary_size, lengths.sum()).astype(np.uint32), lengths)


def write_quantized(source: Path, folder: Path, quantizer: Quantizer) -> Path:
    """Copies the checkpoint in `source` and quantizes its weights."""
    shutil.copytree(source, folder)
    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        specs = quantizer.plan(name, tensor.shape)
        if specs is None:
            tensors[name] = tensor
            continue
        quantized = quantizer.quantize(name, tensor)
        for spec, own in zip(specs, quantized, strict=True):
            assert (tuple(own.shape), own.dtype) == (spec.shape, spec.dtype), spec.name
            tensors[spec.name] = own
    save_file(tensors, folder / "model.safetensors")
    write_json(folder / "hf_quant_config.json", quantizer.config)
    return folder


def quantize(decoder: Path, folder: Path, quantization: str, calibration: Calibration) -> dict[str, Tensor]:
    quantizer = make_quantizer(quantization, Checkpoint.read(decoder), calibration)
    return load_file(write_quantized(decoder, folder, quantizer) / "model.safetensors")
