"""CPU time of gateway and tokenizer per request, per input and per token, under load. `bench_scale` calls it.

`heddle serve` with a simulated engine answers requests of several shapes, and the three figures are fitted to each
service's CPU time per request. CPU time hardly depends on other work of the machine, but it depends on how much waits,
because frames get larger. So the load is heavy: 64 connections for single texts, fewer for many.
"""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from heddle.cli.readiness import http_ready
from tests.processes import descendants, module_of

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SHAPES = ((1, 8), (1, 64), (1, 256), (16, 8), (16, 64), (16, 256))  # inputs of a request, tokens of an input
SERVICES = ("http_gateway", "tokenizer_svc", "engine_svc")
WARM_UP_S = 1.5
BODIES = 64
WORDS = ("river", "stone", "cloud", "house", "light", "green", "water", "music", "table", "paper", "chair", "north")


def measure_costs(seconds: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ("--http-port", str(port), "--grpc-port", "0", "--engine", "simulated")
    variables = {"HEDDLE_ENGINE_SIMULATED_FIXED_US": "2000", "HEDDLE_ENGINE_SIMULATED_PER_TOKEN_NS": "0"}
    variables["HEDDLE_ENGINE_BATCH_TOKENS_MAX"] = "16384"
    command = [sys.executable, "-m", "heddle", "serve", *flags]
    process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
    try:
        asyncio.run(measured(process.pid, port, seconds))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


async def measured(pid: int, port: int, seconds: float) -> None:
    async with asyncio.timeout(120):
        while not await http_ready(f"127.0.0.1:{port}"):
            await asyncio.sleep(0.2)
    print("| inputs | tokens | requests/s | gateway us | tokenizer us | engine us |\n|---|---|---|---|---|---|")
    costs: list[list[float]] = []
    for inputs, tokens in SHAPES:
        load = Load(port, inputs, tokens)
        await load.run(WARM_UP_S)
        before, began = cpu_seconds(pid), time.monotonic()
        answers = await load.run(seconds)
        spent = {name: value - before[name] for name, value in cpu_seconds(pid).items()}
        costs.append([1e6 * spent[service] / answers for service in SERVICES])
        figures = " | ".join(f"{cost:.0f}" for cost in costs[-1])
        print(f"| {inputs} | {tokens} | {answers / (time.monotonic() - began):.0f} | {figures} |", flush=True)
    # Each shape counts the same: a relative error, not one of microseconds.
    rows = np.array([[1, inputs, inputs * tokens] for inputs, tokens in SHAPES])
    for index, service in enumerate(SERVICES):
        wanted = np.array([cost[index] for cost in costs])
        request, an_input, token = np.linalg.lstsq(rows / wanted[:, None], np.ones(len(rows)), rcond=None)[0]
        print(f"{service}: {request:.1f} us per request, {an_input:.1f} us per input, {1000 * token:.0f} ns per token")


class Load:
    """A closed loop of kept-alive connections on bare sockets. The client's own cost is not measured."""

    def __init__(self, port: int, inputs: int, tokens: int) -> None:
        self._port = port
        self._connections = max(8, 64 // inputs)
        self._requests = [request_of(random.Random(seed), inputs, tokens) for seed in range(BODIES)]

    async def run(self, seconds: float) -> int:
        """Returns how many requests were answered."""
        end = time.monotonic() + seconds
        return sum(await asyncio.gather(*(self._connection(index, end) for index in range(self._connections))))

    async def _connection(self, index: int, end: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        answers = 0
        while time.monotonic() < end:
            writer.write(self._requests[(index + answers) % BODIES])
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b" 200 " not in head[:16]:
                raise RuntimeError(head.decode())
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            answers += 1
        writer.close()
        return answers


def request_of(draws: random.Random, inputs: int, tokens: int) -> bytes:
    texts = [" ".join(draws.choices(WORDS, k=tokens - 2)) for _ in range(inputs)]
    body = json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"}).encode()
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def cpu_seconds(pid: int) -> dict[str, float]:
    used = dict.fromkeys(SERVICES, 0.0)
    for one in descendants(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        module = module_of(one)
        if module in used:
            used[module] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used
