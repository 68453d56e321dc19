"""Finds the lines where a pass waits for the GPU, by torch's warnings. Only the copy of the result has to."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

SYNCHRONIZING = "synchronizing CUDA operation"
PACKAGE = "engine_svc"


@contextlib.contextmanager
def record_waits(places: set[str], device: str) -> Iterator[None]:
    """Adds file and line of each wait inside the block to `places`; nothing on a CPU."""
    if device != "cuda":
        yield
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places |= {format_place(warning) for warning in caught if SYNCHRONIZING in str(warning.message)}


def format_place(warning: warnings.WarningMessage) -> str:
    parts = Path(warning.filename).parts
    start = parts.index(PACKAGE) if PACKAGE in parts else -1
    return f"{'/'.join(parts[start:])}:{warning.lineno}"
