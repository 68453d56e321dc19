"""Applies LoRA adapters (arXiv 2106.09685) to linears and embedding tables, row by row: each sequence of a batch may
have its own adapter, or none.

A linear sees only the rows of a batch, not its sequences. So a context variable holds which rows have which adapter:
`TorchBackend` sets it for a forward pass, `engine_svc.models.linear` and `Embeddings` add the changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional

from engine_svc.batch import PackedBatch


@dataclass(frozen=True, slots=True)
class LowRank:
    first: Tensor  # [outputs, rank], for a table [entries, rank]; includes the adapter's scale
    second: Tensor  # [rank, inputs], for a table [rank, width]


# One per adapter: None for the adapter that the weights include already. () for a linear without adapters.
Changes = Sequence[LowRank | None]

NO_CHANGES: Changes = ()


@dataclass(frozen=True, slots=True)
class AdaptedRows:
    of_adapters: Sequence[tuple[int, Tensor]]  # adapter, and its rows int32
    others: Tensor  # rows without an adapter, int32

    @classmethod
    def of(cls, rows: Mapping[str, Tensor], tasks: Sequence[str]) -> "AdaptedRows | None":
        """`rows` are those of `rows_by_adapter`, on the device. None for a pass without adapters."""
        if not rows:
            return None
        return cls([(tasks.index(task), rows[task]) for task in rows if task], rows[""])


_adapted_rows: ContextVar[AdaptedRows | None] = ContextVar("adapted_rows", default=None)


@contextmanager
def use_adapters(rows: AdaptedRows | None) -> Iterator[None]:
    """Sets the adapters of all forward passes inside the `with` block, in this thread."""
    token = _adapted_rows.set(rows)
    try:
        yield
    finally:
        _adapted_rows.reset(token)


def adapted_rows() -> AdaptedRows | None:
    """None in a pass without adapters."""
    return _adapted_rows.get()


def rows_by_adapter(batch: PackedBatch, tasks: Sequence[str]) -> Mapping[str, npt.NDArray[np.intp]]:
    """The rows of the sequences that name one of `tasks`, by that name, and under "" those of the others. Empty if no
    sequence names one."""
    if not tasks or not any(options.task for options in batch.options):
        return {}
    numbers = np.array([tasks.index(options.task) if options.task else -1 for options in batch.options])
    of_token = np.repeat(numbers[batch.option_indices], batch.lengths)
    rows = {task: np.flatnonzero(of_token == number) for number, task in enumerate(("", *tasks), -1)}
    return {task: own for task, own in rows.items() if len(own) or not task}


def add_changes(outputs: Tensor, inputs: Tensor, changes: Changes) -> None:
    """Adds the adapters' changes, in place, to the outputs of a linear for these `inputs`."""
    for change, rows in changes_of_rows(changes):
        low = functional.linear(inputs.index_select(0, rows), change.second)
        outputs.index_add_(0, rows, functional.linear(low, change.first))


def add_changes_of_table(outputs: Tensor, ids: Tensor, changes: Changes) -> None:
    """Adds the adapters' changes, in place, to the embeddings of these ids. A table with one row has it for all ids."""
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
