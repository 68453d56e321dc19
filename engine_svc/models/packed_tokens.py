"""A packed batch as tensors on the device: what a model's forward pass takes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine_svc.batch import PackedBatch
from engine_svc.models.attention import Layout
from engine_svc.models.linear import rows_step


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """`rows` tokens: those of the sequences end to end, then fillers (id 0) up to what the linears like best."""

    ids: Tensor  # int32 [rows]
    type_ids: Tensor  # int32 [rows]
    positions: Tensor  # int32 [rows], from 0 in each sequence
    layout: Layout

    @classmethod
    def of(cls, batch: PackedBatch, *, head_dim: int, device: torch.device, dtype: torch.dtype) -> "PackedTokens":
        """One copy to the device."""
        rows = -batch.tokens % rows_step(device, dtype) + batch.tokens
        columns = [filled(column, rows) for column in (batch.token_ids, batch.type_ids, batch.positions)]
        packed = torch.from_numpy(np.concatenate([*columns, batch.cu_seqlens])).to(device)
        ids, type_ids, positions, cu_seqlens = torch.split(packed, [rows, rows, rows, len(batch.cu_seqlens)])
        layout = Layout.of(batch.lengths.tolist(), cu_seqlens, head_dim=head_dim, dtype=dtype)
        return cls(ids, type_ids, positions, layout)


def filled(column: npt.NDArray[np.int32], rows: int) -> npt.NDArray[np.int32]:
    return np.pad(column, (0, rows - len(column)))
