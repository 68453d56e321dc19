"""A worker with real threads: its outcomes, errors of single sequences, and how it starts and ends."""

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from engine_svc.backends import Backend
from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from engine_svc.submission import Outcome, Submission
from heddle.rpc.errors import ErrorKind, HeddleError
from tests.engine_svc.submissions import ROOMY, sequence
from tests.engine_svc.workers import NAN, POISON, Recording, Running
from tests.sequences import columns, run_each, sequences_of


async def test_outcomes_arrive_on_the_event_loop() -> None:
    backend = Recording()
    running = Running(lambda: backend)
    running.scheduler.submit([running.single(number) for number in range(20)])
    await running.until(20)
    assert running.threads == {threading.get_ident()}
    assert backend.threads == {"worker"}
    assert all(outcome.results[0].values.shape == (1, 384) for outcome in running.outcomes.values())
    await running.end()
    assert backend.closed


async def test_one_bad_sequence_fails_alone() -> None:
    backend = Recording()
    running = Running(lambda: backend)
    backend.gate.clear()
    running.scheduler.submit([running.single(number, {2: POISON, 5: NAN}.get(number)) for number in range(8)])
    backend.gate.set()
    await running.until(8)
    assert {number: running.kind(number) for number in range(8) if running.kind(number)} == {
        2: ErrorKind.INTERNAL,
        5: ErrorKind.BAD_OUTPUT,
    }
    await running.end()


async def test_bad_sequences_of_a_submission_do_not_fail_the_others() -> None:
    running = Running(Recording)
    good = [sequence(2), sequence(5)]
    running.scheduler.submit([running.several(0, [good[0], POISON, good[1], NAN])])
    await running.until(1)
    outcome = running.outcomes[0]
    kinds = {index: error.kind for index, error in outcome.errors if isinstance(error, HeddleError)}
    assert kinds == {1: ErrorKind.INTERNAL, 3: ErrorKind.BAD_OUTPUT}
    [rows] = outcome.results
    np.testing.assert_array_equal(rows.values[[0, 2]], run_each(SimulatedBackend(fixed_us=0), good))
    assert not rows.values[[1, 3]].any()
    await running.end()


async def test_a_submission_of_several_batches_has_one_outcome() -> None:
    backend = Recording()
    running = Running(lambda: backend, limits=replace(ROOMY, batch_items_max=3), passes=2)
    them = [sequence(2) for _ in range(10)]
    them[7] = POISON
    running.scheduler.submit([running.several(0, them)])
    await running.until(1)
    [rows], errors = running.outcomes[0].results, running.outcomes[0].errors
    assert [index for index, _ in errors] == [7]
    good = [*them[:7], *them[8:]]
    np.testing.assert_array_equal(np.delete(rows.values, 7, 0), run_each(SimulatedBackend(fixed_us=0), good))
    assert max(backend.sizes) == 3
    await running.end()


async def start_submission_of_three_parts() -> tuple[Recording, Running, Submission]:
    """Returns while the first part is computed, which lasts until the gate of the backend opens."""
    backend = Recording()
    backend.gate.clear()
    running = Running(lambda: backend, limits=replace(ROOMY, batch_items_max=2))
    await asyncio.wrap_future(running.worker.loaded)
    submission = running.several(0, [sequence(2) for _ in range(5)])
    running.scheduler.submit([submission])
    async with asyncio.timeout(5):
        while running.worker.running_since is None:
            await asyncio.sleep(0.002)
    return backend, running, submission


async def test_parts_that_expire_while_others_are_computed_fail_alone() -> None:
    backend, running, submission = await start_submission_of_three_parts()
    submission.deadline = time.monotonic()
    backend.gate.set()
    await running.until(1)
    assert [index for index, _ in running.outcomes[0].errors] == [2, 3, 4]
    assert running.kind(0) is ErrorKind.DEADLINE_EXCEEDED
    assert np.any(running.outcomes[0].results[0].values[:2], axis=1).all()
    await running.end()


async def test_a_submission_that_is_cancelled_while_a_part_runs_is_not_delivered() -> None:
    backend, running, submission = await start_submission_of_three_parts()
    assert running.scheduler.cancel(submission)
    running.scheduler.submit([running.single(1)])
    backend.gate.set()
    await running.until(1)
    assert list(running.outcomes) == [1]
    assert backend.sizes == [2, 1]
    await running.end()


async def test_nan_in_one_row_of_several_fails_only_its_sequence() -> None:
    class Ragged(Recording):
        def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
            rows = np.ones((batch.tokens, 9), np.float32)
            for one, stop in zip(sequences_of(batch), batch.cu_seqlens[1:], strict=True):
                rows[stop - 1, 4] = np.nan if one == NAN else 1
            return {Output.VECTOR: Rows(rows, batch.lengths)}

    running = Running(Ragged)
    running.scheduler.submit([running.single(number, NAN if number == 1 else None) for number in range(3)])
    await running.until(3)
    assert [running.kind(number) for number in range(3)] == [None, ErrorKind.BAD_OUTPUT, None]
    await running.end()


async def test_finite_values_pass_even_if_their_squares_overflow() -> None:
    class Huge(Recording):
        def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
            return {output: Rows(rows.values * np.float32(1e30)) for output, rows in super().run(batch).items()}

    running = Running(Huge)
    running.scheduler.submit([running.single(0)])
    await running.until(1)
    assert running.kind(0) is None
    await running.end()


async def test_a_backend_that_loses_a_result_does_not_mix_results_up() -> None:
    class Short(Recording):
        def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
            return {output: rows.part(0, max(1, len(batch) - 1)) for output, rows in super().run(batch).items()}

    running = Running(Short)
    submissions = [running.single(number) for number in range(5)]
    running.scheduler.submit(submissions)
    await running.until(5)
    for number, submission in enumerate(submissions):
        [expected] = run_each(SimulatedBackend(fixed_us=0), PackedBatch.of([submission.sequences]))
        np.testing.assert_array_equal(running.outcomes[number].results[0].values, [expected])
    await running.end()


async def test_equal_sequences_of_several_submissions_are_computed_once_and_all_answered() -> None:
    backend = Recording()
    running = Running(lambda: backend)
    twins = sequence(4)
    running.scheduler.submit([running.single(number, twins) for number in range(6)])
    await running.until(6)
    assert sum(backend.sizes) == 1
    await running.end()


async def test_an_outcome_has_the_time_in_the_queue_and_in_the_backend() -> None:
    running = Running(lambda: SimulatedBackend(fixed_us=30_000))
    running.scheduler.submit([running.single(0)])
    while running.worker.running_since is None:
        await asyncio.sleep(0.001)
    running.scheduler.submit([running.single(1)])
    await running.until(2)
    assert all(outcome.compute_s >= 0.03 for outcome in running.outcomes.values())
    assert 0 < running.outcomes[1].queue_s < 5
    await running.end()


async def test_expired_submissions_fail_and_are_not_computed() -> None:
    backend = Recording()
    running = Running(lambda: backend)
    await asyncio.wrap_future(running.worker.loaded)
    running.scheduler.submit([running.single(0, deadline=time.monotonic() - 1), running.single(1)])
    await running.until(2)
    assert running.kind(0) is ErrorKind.DEADLINE_EXCEEDED
    assert running.kind(1) is None
    assert sum(backend.sizes) == 1
    await running.end()


async def test_a_free_worker_takes_everything_that_came_in_the_meantime() -> None:
    backend = Recording()
    running = Running(lambda: backend)
    await asyncio.wrap_future(running.worker.loaded)
    backend.gate.clear()
    running.scheduler.submit([running.single(0)])
    while running.worker.running_since is None:
        await asyncio.sleep(0.002)
    for number in range(1, 6):
        running.scheduler.submit([running.single(number)])
    assert running.worker.running_tokens == 2
    backend.gate.set()
    await running.until(6)
    assert backend.sizes == [1, 5]
    assert running.worker.running_since is None
    await running.end()


async def test_a_receiver_that_fails_does_not_affect_the_others() -> None:
    def fail(outcome: Outcome) -> None:
        raise ValueError("a bug of the receiver")

    running = Running(Recording)
    running.scheduler.submit([Submission(columns(sequence(2)), "flow", fail), running.single(1)])
    await running.until(1)
    await running.end()


async def test_backend_that_cannot_be_loaded_says_why() -> None:
    def fail() -> Backend:
        raise ValueError("no such weights")

    running = Running(fail)
    for future in (running.worker.loaded, running.worker.stopped):
        with pytest.raises(ValueError, match="no such weights"):
            await asyncio.wait_for(asyncio.wrap_future(future), 5)


async def test_a_closed_scheduler_lets_the_worker_answer_what_waits() -> None:
    backend = Recording()
    backend.gate.clear()
    running = Running(lambda: backend)
    running.scheduler.submit([running.single(number) for number in range(10)])
    running.scheduler.close()
    backend.gate.set()
    await running.end()
    await running.until(10)


async def test_backend_is_warm_before_it_counts_as_loaded() -> None:
    backend = Recording()
    running = Running(lambda: backend, [[1], [3, 3]])
    await asyncio.wrap_future(running.worker.loaded)
    assert backend.sizes == [1, 2]
    await running.end()
