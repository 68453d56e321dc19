"""Whole models with the kernels, in Triton's interpreter: they compute what they compute without. FP8 goes from the
norms and the gates to the linears that take it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models import float8, norms, residual_stream, rotary, transformer
from engine_svc.models.float8 import Float8Rows
from engine_svc.models.kernels.quantize import widened
from engine_svc.models.linear import Activation
from engine_svc.models.norms import RMSNorm
from engine_svc.models.residual_stream import ResidualStream
from engine_svc.models.transformer import GatedFeedForward, Norms
from heddle.checkpoint import Checkpoint
from tests.engine_svc.models.cases import OUTPUTS, Array, Case
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.packed import random_batch

# Norms before branches and of heads, rotary positions and gates; norms of sums; both kinds of norms around a branch;
# rotations of a part of each head; norms of two sums.
MODEL_TYPES = ("qwen3", "bert", "gemma3_text", "modernbert", "jina_bert_v2")


@pytest.fixture
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (float8, norms, residual_stream, rotary, transformer):
        monkeypatch.setattr(module, "runs_kernels", lambda _: True)
