"""Single token sequences for tests, which are packed into batches, and a backend's results for each of them."""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine_svc.rows import Rows
from engine_svc.sequences import Options, Output, PackedBatch, Sequences

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sequence:
    token_ids: bytes  # uint32
    type_ids: bytes = b""  # uint8; empty = all zero
    prompt_tokens: int = 0
    output: Output = Output.VECTOR
    more_outputs: tuple[Output, ...] = ()
    skip_normalization: bool = False
    dimensions: int = 0
    task: str = ""

    @property
    def tokens(self) -> int:
        return len(self.token_ids) // 4

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (self.output, *self.more_outputs)

    @property
    def options(self) -> Options:
        return Options(
            self.output,
            self.more_outputs,
            self.prompt_tokens,
            self.skip_normalization,
            self.dimensions,
            self.task,
        )


class Runner(Protocol):
    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]: ...


def columns(*sequences: Sequence) -> Sequences:
    """Joins sequences that share their options."""
    types = None
    if any(one.type_ids for one in sequences):
        types = np.frombuffer(b"".join(one.type_ids or bytes(one.tokens) for one in sequences), np.uint8)
    ids = np.frombuffer(b"".join(one.token_ids for one in sequences), "<u4")
    [options] = {one.options for one in sequences}
    return Sequences.of(ids, np.array([one.tokens for one in sequences]), types, options)


def packed(sequences: List[Sequence]) -> PackedBatch:
    return PackedBatch.of([columns(one) for one in sequences])


def sequences_of(batch: PackedBatch) -> list[Sequence]:
    sequences = []
    for (start, stop), number in zip(pairwise(batch.cu_seqlens.tolist()), batch.option_indices.tolist(), strict=True):
        options, types = batch.options[number], batch.type_ids[start:stop].astype(np.uint8)
        sequences.append(
            Sequence(
                batch.token_ids[start:stop].astype("<u4").tobytes(),
                types.tobytes() if types.any() else b"",
                options.prompt_tokens,
                options.output,
                options.more_outputs,
                options.skip_normalization,
                options.dimensions,
                options.task,
            )
        )
    return sequences


def run_each(backend: Runner, batch: PackedBatch | List[Sequence], cores: int = 0) -> list[Array]:
    """Returns an array for each output of each sequence. A sparse vector is [2, entries]: indices, then values."""
    if not isinstance(batch, PackedBatch):
        batch = packed(batch)
    outputs: frozenset[Output] = getattr(backend, "outputs", frozenset())
    if len(outputs) == 1:  # the default of the backend
        [only] = outputs
        batch = replace(batch, options=[replace(options, output=only, more_outputs=()) for options in batch.options])
    results = backend.run(batch, cores)
    arrays = {output: iterate(rows) for output, rows in results.items()}
    return [
        trimmed(next(arrays[output]), output, options)
        for options in (batch.options[number] for number in batch.option_indices)
        for output in options.outputs
    ]


def iterate(rows: Rows) -> Iterator[Array]:
    if rows.lengths is None:
        yield from rows.values
        return
    for start, stop in pairwise([0, *np.cumsum(rows.lengths).tolist()]):
        values = rows.values[start:stop]
        yield values if rows.indices is None else np.stack([rows.indices[start:stop].astype(np.float32), values])


def trimmed(array: Array, output: Output, options: Options) -> Array:
    return array[: options.dimensions or None] if output is Output.VECTOR else array


def dense(sparse: List[Array], size: int) -> Array:
    """Expands sparse vectors into an array [n, size]."""
    whole = np.zeros((len(sparse), size), np.float32)
    for row, (indices, values) in zip(whole, sparse, strict=True):
        row[indices.astype(np.int64)] = values
    return whole
