"""A closed-loop HTTP load: each connection sends a request, reads the answer, sends the next. Used by bench_http.

Written on bare sockets, since a full HTTP client would cost more per request than the servers that are measured. It
runs in a process of its own: `python -m tests.bench.load` reads a `Load` as JSON and writes a `Report`.
"""

import asyncio
import base64
import dataclasses
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

LENGTH = b"content-length:"
# So many answers are kept and compared with the reference once the clock has stopped.
CHECKED_MAX = 64


@dataclass(frozen=True)
class Load:
    port: int
    model: str
    texts: list[str]
    connections: int
    seconds: float
    seconds_max: float  # a slow server is measured until there is an answer per connection, or so long
    warm_up_s: float


@dataclass(frozen=True)
class Report:
    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    started_at: float  # time.time
    checked: dict[int, list[float]]  # vectors of some of the texts, by index

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds


def measure(load: Load) -> Report:
    """Runs the load in another process."""
    command = [sys.executable, "-m", "tests.bench.load"]
    done = subprocess.run(
        command, input=json.dumps(dataclasses.asdict(load)), capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout)
    report["checked"] = {int(index): vector for index, vector in report["checked"].items()}
    return Report(**report)


class Connection(asyncio.Protocol):
    def __init__(self, driver: "Driver") -> None:
        self.driver = driver
        self.received = bytearray()
        self.needed = 0
        self.text = 0
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.text = self.driver.draw()
        self.needed = 0
        self.received.clear()
        self.sent_at = time.perf_counter()
        self.transport.write(self.driver.requests[self.text])

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.needed:
            self.needed = answer_bytes(self.received)
        if self.needed and len(self.received) >= self.needed:
            self.driver.answered(self)
            if not self.driver.stopped:
                self.send()


class Driver:
    def __init__(self, load: Load) -> None:
        self.load = load
        self.requests = [request_bytes(load.model, text) for text in load.texts]
        self.random = random.Random(0)
        self.stopped = False
        self.measuring = False
        self.latencies: list[float] = []
        self.errors = 0
        self.kept: dict[int, bytes] = {}

    def draw(self) -> int:
        return self.random.randrange(len(self.requests))

    def answered(self, connection: Connection) -> None:
        if not self.measuring:
            return
        self.latencies.append(time.perf_counter() - connection.sent_at)
        if b" 200 " not in connection.received[:16]:
            self.errors += 1
        elif len(self.kept) < CHECKED_MAX:
            self.kept[connection.text] = bytes(connection.received)

    async def run(self) -> Report:
        loop = asyncio.get_running_loop()
        for _ in range(self.load.connections):
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.load.port)
        await asyncio.sleep(self.load.warm_up_s)
        self.measuring, started_at, began = True, time.time(), time.perf_counter()
        await asyncio.sleep(self.load.seconds)
        while len(self.latencies) < self.load.connections and time.perf_counter() - began < self.load.seconds_max:
            await asyncio.sleep(1)
        self.measuring, self.stopped = False, True
        seconds = time.perf_counter() - began
        p50, p99 = np.percentile(self.latencies, (50, 99)) * 1e3 if self.latencies else (0.0, 0.0)
        checked = {index: vector_of(answer) for index, answer in self.kept.items()}
        return Report(len(self.latencies), seconds, float(p50), float(p99), self.errors, started_at, checked)


def request_bytes(model: str, text: str) -> bytes:
    """As the OpenAI client asks: vectors in base64."""
    body = json.dumps({"model": model, "input": text, "encoding_format": "base64"}).encode()
    head = (
        f"POST /embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answer_bytes(received: bytearray) -> int:
    """Size of the whole answer; 0 while its head is not complete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = bytes(received[:end]).lower()
    start = head.index(LENGTH) + len(LENGTH)
    return end + 4 + int(head[start:].split(b"\r", 1)[0])


def vector_of(answer: bytes) -> list[float]:
    encoded = json.loads(answer.split(b"\r\n\r\n", 1)[1])["data"][0]["embedding"]
    floats: list[float] = np.frombuffer(base64.b64decode(encoded), "<f4").tolist()
    return floats


def main() -> None:
    load = Load(**json.load(sys.stdin))
    json.dump(dataclasses.asdict(asyncio.run(Driver(load).run())), sys.stdout)


if __name__ == "__main__":
    main()
