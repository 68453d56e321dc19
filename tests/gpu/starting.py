"""What happens while a model starts on a GPU: how long Triton compiles, and whether CUDA graphs are captured. Graphs
can be switched off to measure their effect."""

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from engine_svc.backends import torch_backend
from engine_svc.backends.cuda_graphs import CudaGraphs
from engine_svc.backends.torch_backend import TorchBackend


@dataclass
class Compilations:
    count: int = 0
    seconds: float = 0.0

    def note(self, *, times: Any, cache_hit: bool, **_: Any) -> None:
        """Triton's hook. Its times are in microseconds."""
        if not cache_hit:
            self.count += 1
            self.seconds += times.total / 1e6


@contextlib.contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Counts what Triton compiles inside the block: nothing if Triton is not installed."""
    compilations = Compilations()
    if importlib.util.find_spec("triton") is None:
        yield compilations
        return
    from triton import knobs

    with mock.patch.object(knobs.compilation, "listener", compilations.note):
        yield compilations


def count_graphs(backend: TorchBackend) -> int:
    return len(backend._graphs)


@contextlib.contextmanager
def without_graphs(backend: TorchBackend) -> Iterator[None]:
    """Inside the block, the backend runs small batches without graphs, as it runs large ones."""
    with mock.patch.object(backend, "_graphs", CudaGraphs()):
        yield


@contextlib.contextmanager
def without_capture() -> Iterator[None]:
    """Backends that are loaded inside the block have no graphs, and load faster."""
    with mock.patch.object(torch_backend, "capture_graphs", return_value=CudaGraphs()):
        yield
