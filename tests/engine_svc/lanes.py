"""A lane on a backend that remembers, for the tests of the lane."""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from engine_svc.backends.backend import Backend
from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.batch import PackedBatch
from engine_svc.batch import Sequence as TokenSequence
from engine_svc.lane import Lane
from engine_svc.scheduler import Scheduler, SchedulerLimits
from engine_svc.ticket import Outcome, Ticket
from heddle.rpc.errors import ErrorKind, HeddleError
from tests.engine_svc.tickets import ROOMY, sequence

POISON = sequence(3, content=666)
NAN = sequence(3, content=777)


class Recording:
    """Simulated at no cost; raises for POISON, gives NaN for NAN, and remembers its batches and threads."""

    outputs, data_type = SimulatedBackend().outputs, "float32"

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: set[str] = set()
        self.niceness: dict[int, int] = {}  # of who ran a batch of so many sequences
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def run(self, batch: PackedBatch, cores: int = 0) -> Sequence[npt.NDArray[np.float32]]:
        self.gate.wait(5)
        self.sizes.append(len(batch.sequences))
        self.threads.add(threading.current_thread().name)
        self.niceness[len(batch.sequences)] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        if POISON in batch.sequences:
            raise MemoryError("too much for this device")
        arrays = SimulatedBackend(fixed_us=0, per_token_ns=0).run(batch)
        return [
            array * np.float32("nan") if one == NAN else array
            for one, array in zip(batch.sequences, arrays, strict=True)
        ]

    def close(self) -> None:
        self.closed = True


class Running:
    """A lane on a backend, and what it delivered."""

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
        self.lane = Lane(load_backend, self.scheduler, loop, warm_up, threads=passes, has_express=has_express)
        self.outcomes: dict[int, Outcome] = {}
        self.threads: set[int] = set()
        self.lane.start()

    def ticket(self, number: int, of: TokenSequence | None = None, deadline: float | None = None) -> Ticket:
        def deliver(outcome: Outcome) -> None:
            assert number not in self.outcomes
            self.threads.add(threading.get_ident())
            self.outcomes[number] = outcome

        return Ticket(of or sequence(2), "flow", deliver, 0, deadline)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.outcomes) < count:
                await asyncio.sleep(0.002)

    async def end(self) -> None:
        self.scheduler.close()
        await asyncio.wait_for(asyncio.wrap_future(self.lane.stopped), 5)

    def kind(self, number: int) -> ErrorKind | None:
        result = self.outcomes[number].result
        return result.kind if isinstance(result, HeddleError) else None
