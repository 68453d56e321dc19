"""An HTTP load: closed loop (each connection waits for its answer) or open loop (requests are sent when they are due).

It uses bare sockets, because a full HTTP client would cost more per request than the servers that are measured. It runs
in a process of its own: `python -m tests.bench.load` reads a `Load` as JSON and writes a `Report`. `dialect` writes the
requests and reads the answers.
"""

import asyncio
import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from dataclasses import dataclass

from tests.bench.arrivals import poisson_arrivals
from tests.bench.connection import Connection, request_bytes
from tests.bench.ratios import percentile

# So many answers are kept, to be compared with the reference once the clock has stopped.
KEPT_MAX = 64
# Beyond these, requests of an open loop wait for a connection; the wait is part of their latency.
OPEN_CONNECTIONS_MAX = 512


class LoadError(Exception):
    """For example, a server closed connections."""


@dataclass(frozen=True)
class Load:
    port: int
    path: str
    bodies: list[str]  # sent in this order, over and over
    start: int  # index of the first
    kept: list[int]  # indices of those whose answers are wanted
    seconds: float
    warm_up_s: float
    seconds_max: float = 0.0  # a closed loop goes on until there is an answer per connection, or so long
    connections: int = 0  # 0: open loop
    per_second: float = 0.0  # of the open loop
    grace_s: float = 2.0  # how long an open loop waits for what is due when the time is over
    drain_s_max: float = 0.0  # how long a closed loop waits for its last answers, which only answers_in_all counts


@dataclass(frozen=True)
class Report:
    seconds: float
    answered: list[int]  # how often each body was answered while measured, by index, errors included
    answers_in_all: int  # warm-up included
    errors: int
    unanswered: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    kept: dict[int, str]  # bodies of answers
    cpu_s: float  # of the load itself


def started(load: Load) -> subprocess.Popen[str]:
    """Starts the load in another process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    json.dump(dataclasses.asdict(load), process.stdin)
    process.stdin.close()
    process.stdin = None
    return process


def measure(load: Load) -> Report:
    with started(load) as process:
        return finished(process)


def finished(process: subprocess.Popen[str]) -> Report:
    output, _ = process.communicate()
    if process.returncode:
        raise LoadError("the load failed: see what it wrote")
    report = json.loads(output)
    report["kept"] = {int(index): answer for index, answer in report["kept"].items()}
    return Report(**report)


class Driver:
    def __init__(self, load: Load) -> None:
        self.load = load
        self.requests = [request_bytes(load.path, body) for body in load.bodies]
        self.wanted = frozenset(load.kept)
        self.next = load.start
        self.measuring = self.stopped = False
        self.latencies: list[float] = []
        self.answered = [0] * len(load.bodies)
        self.sent = self.answers_in_all = self.errors = self.lost = 0
        self.kept: dict[int, bytes] = {}
        self.connections: list[Connection] = []
        self.cpu_began = time.process_time()

    async def run(self) -> Report:
        try:
            return await (self.run_closed() if self.load.connections else self.run_open())
        finally:
            self.stopped = True
            for connection in self.connections:
                connection.transport.close()

    async def run_closed(self) -> Report:
        for _ in range(self.load.connections):
            self.send_next(await self.connected(), time.perf_counter())
        await asyncio.sleep(self.load.warm_up_s)
        began, self.measuring = time.perf_counter(), True
        await asyncio.sleep(self.load.seconds)
        while len(self.latencies) < self.load.connections and time.perf_counter() - began < self.load.seconds_max:
            await asyncio.sleep(0.1)
        self.measuring, self.stopped = False, True
        seconds = time.perf_counter() - began
        drained_by = time.perf_counter() + self.load.drain_s_max
        while self.answers_in_all < self.sent and time.perf_counter() < drained_by:
            await asyncio.sleep(0.005)
        return self.report(seconds, unanswered=0)

    async def run_open(self) -> Report:
        self.free: list[Connection] = [await self.connected() for _ in range(8)]
        self.due: list[float] = []
        self.under_way: dict[Connection, float] = {}
        self.opened = len(self.free)
        began = time.perf_counter()
        self.measured_from = began + self.load.warm_up_s
        for arrival in poisson_arrivals(self.load.per_second, self.load.warm_up_s + self.load.seconds, seed=1):
            while (early := began + arrival - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            self.measuring = True
            self.due.append(began + arrival)
            await self.send_due()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.load.grace_s):
                while self.due or self.under_way:
                    await asyncio.sleep(0.02)
        self.stopped = True
        now = time.perf_counter()
        late = [now - due for due in (*self.due, *self.under_way.values()) if due >= self.measured_from]
        self.latencies += late
        return self.report(self.load.seconds, unanswered=len(late))

    async def send_due(self) -> None:
        if not self.free and self.opened < OPEN_CONNECTIONS_MAX:
            self.opened += 1
            self.free.append(await self.connected())
        while self.due and self.free:
            connection, due = self.free.pop(), self.due.pop(0)
            self.under_way[connection] = due
            self.send_next(connection, due)

    async def connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self.on_answer, self.on_lost), "127.0.0.1", self.load.port
        )
        self.connections.append(connection)
        return connection

    def send_next(self, connection: Connection, since: float) -> None:
        connection.send(self.requests[self.next], self.next, since)
        self.sent += 1
        self.next = (self.next + 1) % len(self.requests)

    def on_answer(self, connection: Connection, *, is_ok: bool, body: bytes) -> None:
        now = time.perf_counter()
        self.answers_in_all += 1
        if is_ok and connection.index in self.wanted and len(self.kept) < KEPT_MAX:
            self.kept[connection.index] = body
        if self.measuring and (self.load.connections or connection.since >= self.measured_from):
            self.latencies.append(now - connection.since)
            self.answered[connection.index] += 1
            self.errors += not is_ok
        if self.stopped:
            return
        if self.load.connections:
            self.send_next(connection, now)
            return
        del self.under_way[connection]
        if self.due:
            self.under_way[connection] = self.due[0]
            self.send_next(connection, self.due.pop(0))
        else:
            self.free.append(connection)

    def on_lost(self) -> None:
        if not self.stopped:
            self.lost += 1

    def report(self, seconds: float, unanswered: int) -> Report:
        if self.lost:
            raise LoadError(f"the server closed {self.lost} connections: this would be another load")
        p50, p90, p99 = (1e3 * percentile(self.latencies, percent) for percent in (50, 90, 99))
        kept = {index: answer.decode() for index, answer in self.kept.items()}
        return Report(
            *(seconds, self.answered, self.answers_in_all, self.errors, unanswered, p50, p90, p99, kept),
            cpu_s=time.process_time() - self.cpu_began,
        )


def main() -> None:
    load = Load(**json.load(sys.stdin))
    try:
        import uvloop  # the load should take as little of the cores as it can
    except ImportError:
        report = asyncio.run(Driver(load).run())
    else:
        report = uvloop.run(Driver(load).run())
    json.dump(dataclasses.asdict(report), sys.stdout)


if __name__ == "__main__":
    main()
