"""Low-rank changes (LoRA, arXiv 2106.09685) of linears and tables, for some rows of a pass: each sequence of a batch
may have an adapter of its own, or none.

A linear sees rows and nothing else of a batch, so which rows have which adapter is kept beside the pass, for the thread
that runs it. `TorchBackend` states it, `engine_svc.models.linear` and `Embeddings` add the changes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.batch import PackedBatch


@dataclass(frozen=True, slots=True)
class LowRank:
    first: Tensor  # [outputs, rank], of a table [entries, rank]; the adapter's scale is in it
    second: Tensor  # [rank, inputs], of a table [rank, width]


# By adapter; None for the one that is in the weights already, () for what no adapter changes.
Changes = Sequence[LowRank | None]

NO_CHANGES: Changes = ()


@dataclass(frozen=True, slots=True)
class AdaptedRows:
    of_adapters: Sequence[tuple[int, Tensor]]  # adapter, and its rows int32
    others: Tensor  # rows without an adapter, int32


_adapted_rows: ContextVar[AdaptedRows | None] = ContextVar("adapted_rows", default=None)


@contextmanager
def adapted(rows: AdaptedRows | None) -> Iterator[None]:
    """The passes of this thread, while it lasts."""
    token = _adapted_rows.set(rows)
    try:
        yield
    finally:
        _adapted_rows.reset(token)


def adapted_rows() -> AdaptedRows | None:
    """None in a pass without adapters."""
    return _adapted_rows.get()


def rows_by_adapter(batch: PackedBatch, tasks: Sequence[str], device: torch.device) -> AdaptedRows | None:
    """None where no sequence names one of `tasks`."""
    if not tasks or not any(sequence.task for sequence in batch.sequences):
        return None
    number = {"": -1} | {task: index for index, task in enumerate(tasks)}
    of_token = np.repeat([number[sequence.task] for sequence in batch.sequences], batch.lengths)

    def rows_of(adapter: int) -> Tensor:
        return torch.from_numpy(np.flatnonzero(of_token == adapter).astype(np.int32)).to(device)

    found = [adapter for adapter in np.unique(of_token).tolist() if adapter >= 0]
    return AdaptedRows([(adapter, rows_of(adapter)) for adapter in found], others=rows_of(-1))


def add_changes(outputs: Tensor, inputs: Tensor, changes: Changes) -> None:
    """To what a linear made of `inputs`, in place."""
    for change, rows in changes_of_rows(changes):
        low = functional.linear(inputs.index_select(0, rows), change.second)
        outputs.index_add_(0, rows, functional.linear(low, change.first))


def add_changes_of_table(outputs: Tensor, ids: Tensor, changes: Changes) -> None:
    """To the entries of these ids, in place. A table of one entry has it for all ids."""
    for change, rows in changes_of_rows(changes):
        own = ids.index_select(0, rows).clamp(max=len(change.first) - 1)
        outputs.index_add_(0, rows, functional.embedding(own, change.first) @ change.second)


def changes_of_rows(changes: Changes) -> Iterator[tuple[LowRank, Tensor]]:
    adapted = adapted_rows()
    if changes and adapted is not None:
        for adapter, rows in adapted.of_adapters:
            change = changes[adapter]
            if change is not None:
                yield change, rows
