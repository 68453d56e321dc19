"""Sends HTTP requests in an open loop, and records how each was answered. Called by `bench_overload`.

Requests are sent when they are due, however many are unanswered, as independent callers would. Each waits for no other:
there is a connection for every one under way.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.arrivals import poisson_arrivals
from tests.bench.connection import Connection
from tests.bench.ratios import percentile

RETRY_AFTER = re.compile(rb"^retry-after-ms: *(\d+)", re.MULTILINE)
ANSWER_S_MAX = 70.0


@dataclass(frozen=True)
class Phase:
    seconds: float
    per_second: float


@dataclass(slots=True)
class Answer:
    due_s: float  # since the start of the phases
    seconds: float  # until the answer
    status: int  # 0: the connection was closed without an answer
    retry_after_ms: int | None


@dataclass(frozen=True)
class Answers:
    """The answers to the requests that were due in one phase."""

    start_s: float
    seconds: float  # of the phase
    answers: Sequence[Answer]
    good_per_second: float  # answers that came during the phase

    @property
    def good(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status == 200]

    def latency_ms(self, percent: float) -> float:
        latencies = [answer.seconds for answer in self.good]
        return 1e3 * percentile(latencies, percent) if latencies else 0.0

    @property
    def refused(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status == 429]

    def refusal_ms(self, percent: float) -> float:
        latencies = [answer.seconds for answer in self.refused]
        return 1e3 * percentile(latencies, percent) if latencies else 0.0

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)


@dataclass(eq=False)
class OpenLoop:
    port: int
    requests: Sequence[bytes]  # sent in this order, over and over
    answers: list[Answer] = field(default_factory=list)
    _free: list[Connection] = field(default_factory=list)
    _all: set[Connection] = field(default_factory=set)
    _sent: int = 0

    async def run(self, phases: Sequence[Phase], seed: int = 1) -> list[Answers]:
        """Runs one phase after the other and waits for the last answer. Returns the answers of each phase."""
        began, start, ends = time.perf_counter(), 0.0, []
        for number, phase in enumerate(phases):
            for arrival in poisson_arrivals(phase.per_second, phase.seconds, seed + number):
                due = start + arrival
                while (early := began + due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                await self._send(began, due)
            start += phase.seconds
            ends.append(start)
        async with asyncio.timeout(ANSWER_S_MAX):
            while len(self.answers) < self._sent:
                await asyncio.sleep(0.02)
        for connection in self._all:
            connection.transport.close()
        return [self._answers_of(end - phase.seconds, phase.seconds) for phase, end in zip(phases, ends, strict=True)]

    def _answers_of(self, start: float, seconds: float) -> Answers:
        end = start + seconds
        good = sum(one.status == 200 and start <= one.due_s + one.seconds < end for one in self.answers)
        return Answers(start, seconds, [one for one in self.answers if start <= one.due_s < end], good / seconds)

    async def _send(self, began: float, due: float) -> None:
        self._sent += 1
        connection = self._free.pop() if self._free else await self._connected()
        request = self.requests[self._sent % len(self.requests)]

        def on_answer(connection: Connection, *, is_ok: bool, body: bytes) -> None:
            head = bytes(connection.received[: connection.head_bytes]).lower()
            advice = RETRY_AFTER.search(head)
            status = int(head.split(b" ", 2)[1])
            self._note(began, due, status, int(advice[1]) if advice else None)
            if b"connection: close" in head:
                self._all.discard(connection)
            else:
                self._free.append(connection)

        def on_lost() -> None:
            if connection in self._all:
                self._all.discard(connection)
                if connection in self._free:
                    self._free.remove(connection)
                else:
                    self._note(began, due, 0, None)

        connection.on_answer, connection.on_lost = on_answer, on_lost
        connection.send(request, 0, due)

    def _note(self, began: float, due: float, status: int, retry_after_ms: int | None) -> None:
        self.answers.append(Answer(due, time.perf_counter() - began - due, status, retry_after_ms))

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(lambda connection, *, is_ok, body: None, lambda: None), "127.0.0.1", self.port
        )
        self._all.add(connection)
        return connection
