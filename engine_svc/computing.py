"""Runs a batch on a backend so that what goes wrong with one sequence stays with that sequence. Workers call it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine_svc.backends.backend import Backend, DeviceLostError, OutOfMemoryError
from engine_svc.batch import Options, Output, PackedBatch
from engine_svc.rows import Rows, join, missing
from heddle.rpc.errors import ErrorKind, HeddleError

log = logging.getLogger(__name__)

Places = npt.NDArray[np.intp]
Errors = list[tuple[int, HeddleError]]


@dataclass(frozen=True, slots=True)
class Computed:
    """The results of the B sequences of a batch."""

    sequences: int  # B
    rows: Mapping[Output, Rows]  # of sequences that were computed
    # [B]: where in its rows each sequence is, -1 if it failed or does not ask for the output. None: all are, in order.
    places: Mapping[Output, Places | None]
    errors: Mapping[int, HeddleError]  # of sequences that failed

    @property
    def has_failed(self) -> bool:
        """Whether no sequence has a result."""
        return len(self.errors) == self.sequences

    def take(self, places: Places) -> "Computed":
        """As if the sequences at these places had been computed one after the other."""
        errors = {index: self.errors[place] for index, place in enumerate(places.tolist()) if place in self.errors}
        moved = {output: places if own is None else own[places] for output, own in self.places.items()}
        return Computed(len(places), self.rows, moved, errors)

    def part(self, start: int, stop: int, options: Options) -> tuple[list[Rows], Errors]:
        """Of adjacent sequences of which the same is wanted. Errors count from `start`."""
        errors: Errors = []
        if self.errors:
            errors = [(index - start, self.errors[index]) for index in range(start, stop) if index in self.errors]
        if len(errors) == stop - start:
            return [missing(len(errors)) for _ in options.outputs], errors
        return [cut(self._rows_of(output, start, stop), output, options) for output in options.outputs], errors

    def _rows_of(self, output: Output, start: int, stop: int) -> Rows:
        rows, places = self.rows[output], self.places[output]
        if places is None:
            return rows.part(start, stop)
        own = places[start:stop]
        first = own.item(0)
        if first >= 0 and (own == np.arange(first, first + len(own))).all():
            return rows.part(first, first + len(own))
        return rows.take(own)


def cut(rows: Rows, output: Output, options: Options) -> Rows:
    if output is Output.VECTOR and options.dimensions:
        return Rows(rows.values[:, : options.dimensions])
    return rows


def compute(backend: Backend, batch: PackedBatch, cores: int) -> Computed:
    """A batch that raises is run again in halves, down to the sequences that fail alone: so neither one bad sequence
    nor a batch too large for the device's memory fails the rest. Raises DeviceLostError."""
    try:
        return checked(run(backend, batch, cores), batch)
    except DeviceLostError:
        raise
    except Exception as exception:  # noqa: BLE001 - logged once it fails alone
        if len(batch) == 1:
            return Computed(1, {}, {}, {0: error_of(exception, batch.tokens)})
        log.warning("a batch of %d sequences failed and is run again in halves: %r", len(batch), exception)
    # Not inside `except`: there the traceback would keep the failed attempt's memory from being freed.
    middle = len(batch) // 2
    halves = np.split(np.arange(len(batch)), [middle])
    return concatenate(*(compute(backend, batch.take(half), cores) for half in halves))


def run(backend: Backend, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
    results = backend.run(batch, cores)
    for output, places in batch.places.items():
        found = results[output].sequences if output in results else 0
        if found != len(places):
            raise RuntimeError(
                f"the backend returned {found} results for {len(places)} sequences that ask for {output}"
            )
    return results


def checked(results: Mapping[Output, Rows], batch: PackedBatch) -> Computed:
    """Finds the sequences with results that are NaN or infinite."""
    sequences = len(batch)
    places: dict[Output, Places | None] = {}
    bad: set[int] = set()
    for output, asking in batch.places.items():
        places[output] = None
        if len(asking) < sequences:
            places[output] = own = np.full(sequences, -1)
            own[asking] = np.arange(len(asking))
        found = results[output].find_bad()
        if found.size:
            bad.update(asking[found].tolist())
    if not bad:
        return Computed(sequences, results, places, {})
    error = HeddleError(ErrorKind.BAD_OUTPUT, "the model produced NaN or infinity for this input")
    return Computed(sequences, results, without(bad, places, sequences), dict.fromkeys(sorted(bad), error))


def without(bad: set[int], places: Mapping[Output, Places | None], sequences: int) -> dict[Output, Places]:
    kept: dict[Output, Places] = {}
    for output, own in places.items():
        kept[output] = np.arange(sequences) if own is None else own
        kept[output][list(bad)] = -1
    return kept


def concatenate(first: Computed, second: Computed) -> Computed:
    """The sequences of the second behind those of the first."""
    rows: dict[Output, Rows] = {}
    places: dict[Output, Places | None] = {}
    for output in {**first.rows, **second.rows}:
        known = [one.rows[output] for one in (first, second) if output in one.rows]
        rows[output] = join(known)
        own, others = places_of(first, output), places_of(second, output)
        shift = known[0].sequences if len(known) > 1 else 0
        places[output] = np.concatenate([own, np.where(others < 0, -1, others + shift)])
    errors = dict(first.errors) | {first.sequences + index: error for index, error in second.errors.items()}
    return Computed(first.sequences + second.sequences, rows, places, errors)


def places_of(computed: Computed, output: Output) -> Places:
    if output not in computed.places:
        return np.full(computed.sequences, -1)
    places = computed.places[output]
    return np.arange(computed.sequences) if places is None else places


def error_of(exception: Exception, tokens: int) -> HeddleError:
    """What a sequence is answered that has failed alone."""
    if isinstance(exception, OutOfMemoryError):
        log.error("the device's memory is too small for a sequence of %d tokens: %s", tokens, exception)
        message = f"the engine's device has no memory for a sequence of {tokens} tokens just now"
        return HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=1000)
    return HeddleError.from_exception(exception)
