"""A packed batch as tensors on the device: what a model's forward pass takes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine_svc.batch import PackedBatch
from engine_svc.models.layout import Layout
from engine_svc.models.linear import suitable_rows
from engine_svc.models.prefixes import Merging, merging_of


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """`rows` tokens: those of the sequences end to end, or one for each group that has the same prefix; then fillers
    (id 0) up to what the linears like best."""

    ids: Tensor  # int32 [rows]
    type_ids: Tensor  # int32 [rows]
    positions: Tensor  # int32 [rows], from 0 in each sequence
    layout: Layout

    @classmethod
    def of(
        cls, batch: PackedBatch, *, device: torch.device, dtype: torch.dtype, merges_prefixes: bool = False
    ) -> "PackedTokens":
        """`merges_prefixes` is for causal models without token types."""
        merging = merging_of(batch) if merges_prefixes else None
        tokens = batch.tokens if merging is None else len(merging.token_of_row)
        rows = suitable_rows(tokens, device, dtype)
        columns = [laid_out(column, merging, rows) for column in (batch.token_ids, batch.type_ids, batch.positions)]
        packed = torch.from_numpy(np.concatenate([*columns, batch.cu_seqlens])).to(device)
        ids, type_ids, positions, cu_seqlens = torch.split(packed, [rows, rows, rows, len(batch.cu_seqlens)])
        layout = Layout.of(batch.lengths.tolist(), cu_seqlens)
        return cls(ids, type_ids, positions, layout if merging is None else layout.merged(merging))

    def of_tokens(self, hidden: Tensor) -> Tensor:
        """Hidden states [rows, hidden] as those of all tokens, [at least T, hidden]."""
        return self.layout.to_tokens(hidden)


def laid_out(column: npt.NDArray[np.int32], merging: Merging | None, rows: int) -> npt.NDArray[np.int32]:
    own = column if merging is None else column[merging.token_of_row]
    return np.pad(own, (0, rows - len(own)))
