"""The first step describes the card and its software. Without an NVIDIA GPU no other step runs."""

import importlib.metadata
import os
import platform
import shutil

import torch

from tests.gpu.record import Row
from tests.gpu.running import Task

PACKAGES = (
    *("torch", "triton", "transformers", "sentence-transformers", "grpcio", "protobuf", "numpy", "safetensors"),
    *("flash-attn", "flash-attn-3"),
)


NO_COMPILER = "none: Triton needs one to launch kernels"


def run(task: Task) -> None:
    if not task.is_dry and not torch.cuda.is_available():
        task.record.fail("torch finds no NVIDIA GPU; --dry-run runs every step on the CPU, with tiny shapes")
        return
    described = describe_card() if task.device == "cuda" else {}
    task.record.add(device=device_name(task.device), **described)
    task.record.add(python=platform.python_version(), cuda=str(torch.version.cuda))
    versions: Row = {name: find_version(name) for name in PACKAGES}
    task.record.add(**versions)
    task.record.add(c_compiler=shutil.which(os.environ.get("CC", "gcc")) or shutil.which("clang") or NO_COMPILER)


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "CPU (dry run)"


def describe_card() -> Row:
    properties = torch.cuda.get_device_properties(0)
    return {
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "l2_mib": round(properties.L2_cache_size / 2**20, 1),
    }


def find_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
