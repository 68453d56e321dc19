"""Runs batches on a backend. Equal sequences are computed once, and a failure of one sequence stays with it."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine_svc.backends import Backend, DeviceLostError, OutOfMemoryError
from engine_svc.batching import SchedulerLimits
from engine_svc.rows import Rows, join, missing
from engine_svc.sequences import Options, Output, PackedBatch, Sequences
from heddle.rpc.errors import ErrorKind, HeddleError

log = logging.getLogger(__name__)

# Size of the warm-up batch of a backend that compiles every shape.
COMPILED_TOKENS = 16

# Names, in log lines, the requests of a batch's sequences from the first index up to the second.
LogFor = Callable[[int, int], AbstractContextManager[None]]

Errors = list[tuple[int, Exception]]  # index of the sequence, and why it failed; ascending


@dataclass(slots=True)
class BatchResult:
    """The results of the B sequences of a batch."""

    sequences: int  # B
    # Rows of B sequences each. Those of a sequence that failed, or does not want the output, are zero or missing.
    outputs: Mapping[Output, Rows]
    errors: Mapping[int, HeddleError]
    # For the metrics: sequences not computed because they equal others, their tokens, and failed attempts.
    duplicate_sequences: int = 0
    duplicate_tokens: int = 0
    halvings: int = 0

    def take(self, indices: npt.NDArray[np.intp]) -> "BatchResult":
        """The results of the sequences at these indices, in that order."""
        errors = {place: self.errors[index] for place, index in enumerate(indices.tolist()) if index in self.errors}
        return BatchResult(len(indices), {output: rows.take(indices) for output, rows in self.outputs.items()}, errors)

    def part(self, start: int, stop: int, options: Options) -> tuple[list[Rows], Errors]:
        """The results of adjacent sequences that have these options. Indices of errors count from `start`."""
        errors: Errors = []
        if self.errors:
            errors = [(index - start, self.errors[index]) for index in range(start, stop) if index in self.errors]
            if len(errors) == stop - start:
                return [missing(len(errors)) for _ in options.outputs], errors
        results = []
        for output in options.outputs:
            rows = self.outputs[output]
            if stop - start < self.sequences:
                rows = rows.part(start, stop)
            if output is Output.VECTOR and options.dimensions:
                rows = Rows(rows.values[:, : options.dimensions])
            results.append(rows)
        return results, errors


def log_without_requests(start: int, stop: int) -> AbstractContextManager[None]:
    return nullcontext()


def run_batch(
    backend: Backend, parts: Sequence[Sequences], cores: int, log_for: LogFor = log_without_requests
) -> BatchResult:
    """The results of all parts, in order. `log_for` is called with indices of sequences. Raises DeviceLostError."""
    batch = PackedBatch.of(parts)
    distinct, indices = drop_duplicates(batch)
    if indices is None:
        return run_or_halve(backend, distinct, cores, log_for)

    def log_for_duplicates(start: int, stop: int) -> AbstractContextManager[None]:
        _, firsts = np.unique(indices, return_index=True)
        return log_for(firsts.item(start), firsts.item(stop - 1) + 1)

    result = run_or_halve(backend, distinct, cores, log_for_duplicates)
    halvings, result = result.halvings, result.take(indices)
    result.halvings = halvings
    result.duplicate_sequences = len(batch) - len(distinct)
    result.duplicate_tokens = batch.tokens - distinct.tokens
    return result


def drop_duplicates(batch: PackedBatch) -> tuple[PackedBatch, npt.NDArray[np.intp] | None]:
    """The batch without sequences that are equal in content and options to an earlier one, and the index in it for each
    sequence of the original batch; None if there are no duplicates."""
    if len(batch) == 1:
        return batch, None
    hashes = batch.hash_sequences() + batch.option_indices.astype(np.uint64)
    ordered = np.sort(hashes)
    if (ordered[1:] != ordered[:-1]).all():
        return batch, None
    _, firsts, groups = np.unique(hashes, return_index=True, return_inverse=True)
    equals = firsts[groups]
    if not are_equal(batch, batch.take(equals)):
        return batch, None  # different sequences have the same hash
    kept = np.sort(firsts)
    return batch.take(kept), np.searchsorted(kept, equals)


def are_equal(one: PackedBatch, other: PackedBatch) -> bool:
    return (
        np.array_equal(one.cu_seqlens, other.cu_seqlens)
        and np.array_equal(one.token_ids, other.token_ids)
        and np.array_equal(one.type_ids, other.type_ids)
        and np.array_equal(one.option_indices, other.option_indices)
    )


def run_or_halve(backend: Backend, batch: PackedBatch, cores: int, log_for: LogFor, start: int = 0) -> BatchResult:
    """Runs a batch that fails again in halves, down to the sequences that fail alone. Neither one bad sequence nor a
    batch too large for the device's memory then fails the others. `start` is the index of its first sequence, for
    `log_for`. Raises DeviceLostError."""
    sequences = len(batch)
    try:
        return check_finite(run_forward(backend, batch, cores), sequences)
    except DeviceLostError:
        raise
    except Exception as exception:  # noqa: BLE001 - logged below, or once a sequence fails alone
        with log_for(start, start + sequences):
            if sequences == 1:
                return BatchResult(1, {}, {0: sequence_error(exception, batch.tokens)})
            log.warning("a batch of %d sequences failed and is run again in halves: %r", sequences, exception)
    # Outside `except`, where the traceback no longer holds the memory of the failed attempt.
    halves = np.split(np.arange(sequences), [sequences // 2])
    first, second = (run_or_halve(backend, batch.take(half), cores, log_for, start + half.item(0)) for half in halves)
    result = concatenate(first, second)
    result.halvings = 1 + first.halvings + second.halvings
    return result


def run_forward(backend: Backend, batch: PackedBatch, cores: int) -> Mapping[Output, Rows]:
    """One forward pass. Returns rows for every sequence of the batch, whether it wants the output or not."""
    results = backend.run(batch, cores)
    outputs: dict[Output, Rows] = {}
    for output, indices in batch.output_indices.items():
        rows = results.get(output)
        found = 0 if rows is None else rows.sequences
        if rows is None or found != len(indices):
            raise RuntimeError(f"the backend returned {found} results for {len(indices)} sequences that want {output}")
        outputs[output] = rows if found == len(batch) else rows.scatter(indices, len(batch))
    return outputs


def check_finite(outputs: Mapping[Output, Rows], sequences: int) -> BatchResult:
    """Turns results that are NaN or infinite into errors of their sequences."""
    bad: set[int] = set()
    for rows in outputs.values():
        bad.update(rows.find_not_finite().tolist())
    if not bad:
        return BatchResult(sequences, outputs, {})
    good = np.delete(np.arange(sequences), list(bad))
    error = HeddleError(ErrorKind.BAD_OUTPUT, "the model produced NaN or infinity for this input")
    return BatchResult(
        sequences,
        {output: rows.take(good).scatter(good, sequences) for output, rows in outputs.items()},
        dict.fromkeys(sorted(bad), error),
    )


def concatenate(first: BatchResult, second: BatchResult) -> BatchResult:
    """The sequences of `second` after those of `first`."""
    halves = first, second
    outputs = {
        output: join([half.outputs.get(output) or missing(half.sequences) for half in halves])
        for output in {**first.outputs, **second.outputs}
    }
    errors = {**first.errors, **{first.sequences + index: error for index, error in second.errors.items()}}
    return BatchResult(first.sequences + second.sequences, outputs, errors)


def sequence_error(exception: Exception, tokens: int) -> HeddleError:
    """The error for the caller of a sequence that failed alone."""
    if isinstance(exception, OutOfMemoryError):
        log.error("the device has too little memory for a sequence of %d tokens: %s", tokens, exception)
        message = f"the engine's device has no memory for a sequence of {tokens} tokens at the moment"
        return HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=1000)
    return HeddleError.from_exception(exception)


def warm_up(backend: Backend, batches: Iterable[Sequence[int]]) -> None:
    """Runs the first passes, in which a backend allocates, tunes and compiles. A batch is the lengths of its sequences
    in tokens. Passes on a CPU use one core, because other services start on the rest."""
    options = Options(min(backend.outputs, key=lambda output: output.value))
    for lengths in batches:
        ids = np.zeros(sum(lengths), np.uint32)
        run_forward(backend, PackedBatch.of([Sequences.of(ids, np.array(lengths), options=options)]), cores=1)


def warm_up_batches(
    limits: SchedulerLimits, sequence_tokens_max: int, *, compiles_shapes: bool = False
) -> list[list[int]]:
    """Lists batches of one token up to the whole budget, of the longest sequences, then one of the most sequences. With
    `compiles_shapes`, lists one small batch: a backend that compiles each shape when it first sees it, as on a CPU,
    gains nothing for other shapes from a large one."""
    if compiles_shapes:
        return [[min(COMPILED_TOKENS, sequence_tokens_max)]]
    totals = [16**exponent for exponent in range(8) if 16**exponent < limits.batch_tokens_max]
    longest = [split(total, sequence_tokens_max) for total in (*totals, limits.batch_tokens_max)]
    shortest = max(1, min(limits.batch_tokens_max // limits.batch_items_max, sequence_tokens_max))
    most = min(limits.batch_items_max, max(1, limits.batch_tokens_max // shortest))
    return [lengths[: limits.batch_items_max] for lengths in (*longest, [shortest] * most)]


def split(total: int, part_max: int) -> list[int]:
    parts, rest = divmod(total, part_max)
    return [part_max] * parts + [rest] * (rest > 0)
