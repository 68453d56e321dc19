"""A worker on a backend that records its calls, for the tests of the worker."""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engine_svc.backends import Backend
from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.batching import SchedulerLimits
from engine_svc.rows import Rows
from engine_svc.scheduler import Scheduler
from engine_svc.sequences import Output, PackedBatch
from engine_svc.submission import Outcome, Submission
from engine_svc.worker import Worker
from heddle.rpc.errors import ErrorKind, HeddleError
from tests.engine_svc.submissions import ROOMY, sequence
from tests.sequences import Sequence as TokenSequence
from tests.sequences import columns, sequences_of

POISON = sequence(3, content=666)
NAN = sequence(3, content=777)


def changed(rows: Rows, broken: Sequence[bool]) -> Rows:
    """Replaces the rows of the broken sequences by NaN. Each sequence has one row."""
    return Rows(np.where(np.array(broken)[:, None], np.float32("nan"), rows.values))


class Recording:
    """Simulated, without delay. Raises for POISON, returns NaN for NAN, and records its batches and threads."""

    outputs, data_type = SimulatedBackend().outputs, "float32"

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: set[str] = set()
        self.niceness: dict[int, int] = {}  # of the thread that ran a batch, by its number of sequences
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        self.gate.wait(5)
        self.sizes.append(len(batch))
        self.threads.add(threading.current_thread().name)
        self.niceness[len(batch)] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        if POISON in sequences_of(batch):
            raise MemoryError("too much for this device")
        results = SimulatedBackend(fixed_us=0, per_token_ns=0).run(batch)
        broken = [one == NAN for one in sequences_of(batch)]
        return {output: changed(rows, broken) for output, rows in results.items()}

    def close(self) -> None:
        self.closed = True


class Running:
    """A worker on a backend, and the outcomes that it has delivered."""

    def __init__(
        self,
        load_backend: Callable[[], Backend],
        warm_up: Sequence[Sequence[int]] = (),
        *,
        limits: SchedulerLimits = ROOMY,
        passes: int = 1,
        has_express: bool = False,
        runs_in_turn: bool = False,
    ) -> None:
        self.scheduler = Scheduler(limits, passes=passes, cores=passes, runs_in_turn=runs_in_turn)
        loop = asyncio.get_running_loop()
        self.worker = Worker(load_backend, self.scheduler, loop, warm_up, threads=passes, has_express=has_express)
        self.outcomes: dict[int, Outcome] = {}
        self.threads: set[int] = set()
        self.worker.start()

    def single(self, number: int, of: TokenSequence | None = None, deadline: float | None = None) -> Submission:
        return self.several(number, [of or sequence(2)], deadline)

    def several(self, number: int, of: Sequence[TokenSequence], deadline: float | None = None) -> Submission:
        def deliver(outcome: Outcome) -> None:
            assert number not in self.outcomes
            self.threads.add(threading.get_ident())
            self.outcomes[number] = outcome

        return Submission(columns(*of), "flow", deliver, 0, deadline)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.outcomes) < count:
                await asyncio.sleep(0.002)

    async def end(self) -> None:
        self.scheduler.close()
        await asyncio.wait_for(asyncio.wrap_future(self.worker.stopped), 5)

    def kind(self, number: int) -> ErrorKind | None:
        """The kind of the error of a submission, or of its first sequence that failed."""
        error = self.error(number)
        return error.kind if error else None

    def error(self, number: int) -> HeddleError | None:
        outcome = self.outcomes[number]
        error = outcome.error or next((error for _, error in outcome.errors), None)
        assert error is None or isinstance(error, HeddleError)
        return error
