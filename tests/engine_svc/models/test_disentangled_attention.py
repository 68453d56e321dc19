"""Disentangled attention, a few queries at a time or all at once."""

from pathlib import Path

import pytest
import torch

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models import disentangled_attention
from heddle.checkpoint import Checkpoint
from tests.engine_svc.models.cases_of import deberta
from tests.engine_svc.models.packed import random_batch
from tests.sequences import run_each


@pytest.mark.parametrize("numbers_max", [1, 4 * 64 * 5, 4 * 64 * 64 * 2])
def test_tiles_of_any_size_give_the_same(tmp_path: Path, numbers_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    deberta.CASES[0].write(tmp_path)
    backend = TorchBackend(Checkpoint.read(tmp_path), dtype="float32", device="cpu")
    batch = random_batch([3, 40, 40, 40, 64, 64])
    whole = run_each(backend, batch)
    monkeypatch.setattr(disentangled_attention, "TILE_NUMBERS_MAX", numbers_max)
    for ours, theirs in zip(run_each(backend, batch), whole, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), torch.from_numpy(theirs), atol=1e-5, rtol=0)
