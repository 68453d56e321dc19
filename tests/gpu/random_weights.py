"""Loads a model with random weights made on the device: 16 GB take a second, and no disk. The steps that measure speed
load their models this way, through the engine's own loader."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models import model, weights
from engine_svc.models.weights import Weights
from tests.gpu.shapes import ModelShape


class RandomWeights(Weights):
    """Makes any tensor that is asked for, in the shape that is asked for. The scale keeps activations in range through
    all layers."""

    def has(self, name: str) -> bool:
        return True

    def read_blocks(
        self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        drawn = torch.empty(*shape, dtype=dtype or self.dtype, device=self.device)
        if len(shape) == 1:
            drawn.normal_(1.0 if name.endswith("weight") else 0.0, 0.1)
        else:
            drawn.normal_(0.0, 1.0 if "embed" in name else shape[-1] ** -0.5)
        yield slice(0, shape[0]), drawn


def load_random_backend(shape: ModelShape, device: str, **settings: Any) -> TorchBackend:
    torch.manual_seed(0)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(model, "Weights", RandomWeights),
        mock.patch.object(weights, "open_stored_tensors", return_value={}),
    ):
        return TorchBackend(shape.checkpoint(Path(folder)), dtype=shape.dtype, device=device, **settings)
