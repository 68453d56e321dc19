"""The first passes of a backend, which allocate, tune and compile. The worker runs them before the pod is ready."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from engine_svc.backends.backend import Backend
from engine_svc.batch import Options, PackedBatch, Sequences
from engine_svc.computing import run
from engine_svc.forming import SchedulerLimits

# The cores of passes, anew for each number: all, and one, which most passes have where several run side by side.
CORES_OF_ONE_PASS = (0,)
CORES_OF_SEVERAL = (0, 1)


def warm_up(backend: Backend, batches: Iterable[Sequence[int]], *, passes: int) -> None:
    """Runs batches of the given lengths, in tokens. `passes` is how many may run at once."""
    options = Options(min(backend.outputs, key=lambda output: output.value))
    for lengths, cores in itertools.product(batches, CORES_OF_ONE_PASS if passes == 1 else CORES_OF_SEVERAL):
        ids = np.zeros(sum(lengths), np.uint32)
        run(backend, PackedBatch.of([Sequences.of(ids, np.array(lengths), options=options)]), cores)


def warm_up_batches(limits: SchedulerLimits, sequence_tokens_max: int) -> list[list[int]]:
    """From one token to the whole budget in the longest sequences, then the most sequences that a batch can hold."""
    totals = [16**exponent for exponent in range(8) if 16**exponent < limits.batch_tokens_max]
    longest = [split(total, sequence_tokens_max) for total in (*totals, limits.batch_tokens_max)]
    shortest = max(1, min(limits.batch_tokens_max // limits.batch_items_max, sequence_tokens_max))
    most = min(limits.batch_items_max, max(1, limits.batch_tokens_max // shortest))
    return [lengths[: limits.batch_items_max] for lengths in (*longest, [shortest] * most)]


def split(total: int, part_max: int) -> list[int]:
    parts, rest = divmod(total, part_max)
    return [part_max] * parts + [rest] * (rest > 0)
