"""A packed batch as tensors on the device: what a model's forward pass takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from engine_svc.batch import PackedBatch
from engine_svc.models.head_inputs import HeadInputs, HeadOptions
from engine_svc.models.layout import Layout
from engine_svc.models.linear import suitable_rows
from engine_svc.models.low_rank import AdaptedRows, rows_by_adapter
from engine_svc.models.prefixes import Merging, merging_of
from engine_svc.models.upload import Upload


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """`rows` tokens: those of the sequences end to end, or one for each group that has the same prefix; then fillers
    (id 0) up to what the linears like best."""

    ids: Tensor  # int32 [rows]
    type_ids: Tensor  # int32 [rows]
    positions: Tensor  # int32 [rows], from 0 in each sequence
    layout: Layout
    head_inputs: HeadInputs = field(default_factory=HeadInputs)
    adapted_rows: AdaptedRows | None = None  # for `use_adapters`

    @classmethod
    def of(
        cls,
        batch: PackedBatch,
        *,
        device: torch.device,
        dtype: torch.dtype,
        merges_prefixes: bool = False,
        tasks: Sequence[str] = (),
    ) -> "PackedTokens":
        """All that a pass needs of the host, in one copy to the device. `merges_prefixes` is for causal models without
        token types; `tasks` are the model's adapters."""
        merging = merging_of(batch) if merges_prefixes else None
        rows_of_adapters, head_options = rows_by_adapter(batch, tasks), HeadOptions.of(batch)
        upload = Upload()
        add_tokens(upload, batch, merging, device, dtype)
        for task, rows in rows_of_adapters.items():
            upload.add(f"adapter {task}", rows)
        head_options.add_to(upload)
        sent = upload.send(device)
        lengths, cu_seqlens = batch.lengths.tolist(), sent["cu_seqlens"]
        layout = (
            Layout.of(lengths, cu_seqlens)
            if merging is None
            else Layout(lengths, merging.own_tokens.tolist(), cu_seqlens, sent["cu_rows"], sent["row_of_token"])
        )
        return cls(
            sent["ids"],
            sent["type_ids"],
            sent["positions"],
            layout,
            head_options.on_device(sent),
            AdaptedRows.of({task: sent[f"adapter {task}"] for task in rows_of_adapters}, tasks),
        )

    def of_tokens(self, hidden: Tensor) -> Tensor:
        """Hidden states [rows, hidden] as those of all tokens, [at least T, hidden]."""
        return self.layout.to_tokens(hidden)


def add_tokens(
    upload: Upload, batch: PackedBatch, merging: Merging | None, device: torch.device, dtype: torch.dtype
) -> None:
    tokens = batch.tokens if merging is None else len(merging.token_of_row)
    fillers = np.zeros(suitable_rows(tokens, device, dtype) - tokens, np.int32)
    columns = {"ids": batch.token_ids, "type_ids": batch.type_ids, "positions": batch.positions}
    for name, column in columns.items():
        upload.add(name, column if merging is None else column[merging.token_of_row], fillers)
    upload.add("cu_seqlens", batch.cu_seqlens)
    if merging is not None:
        upload.add("cu_rows", np.zeros(1, np.int32), merging.own_tokens.cumsum())
        upload.add("row_of_token", merging.row_of_token)
