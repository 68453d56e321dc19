"""Compares `--engine-transport stream` with `unary`: `python -m tests.bench.transports`.

One simulated engine and a tokenizer pod of each kind, in processes of their own. The two get the same load in turn:
requests of one short text. Printed are requests per second, p50, and CPU time per request of tokenizer and engine. On a
busy machine only the CPU time means something. On two cores, for 64 callers: 209 us with streams, 1,190 us without.
"""

import asyncio
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from heddle.cli.readiness import grpc_ready
from heddle.client import Client
from tests.processes import cpu_seconds

TURNS, TURN_S = 4, 4.0
CALLERS = (1, 64)


def start(module: str, *flags: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, "--log-level", "warning", *flags])


async def load(client: Client, callers: int, texts: "itertools.count[int]") -> list[float]:
    until, seconds = time.perf_counter() + TURN_S, list[float]()

    async def call() -> None:
        while (began := time.perf_counter()) < until:
            await client.vectors([f"a short text, number {next(texts)}"])
            seconds.append(time.perf_counter() - began)

    await asyncio.gather(*(call() for _ in range(callers)))
    return seconds


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine_at = f"unix:{folder}/engine"
        engine = start("engine_svc", "--listen", engine_at, "--backend", "simulated", "--simulated-fixed-us", "500")
        pods = {
            kind: start(
                *("tokenizer_svc", "--listen", f"unix:{folder}/{kind}", "--engines", engine_at),
                *("--engine-transport", kind),
            )
            for kind in ("stream", "unary")
        }
        try:
            for kind in pods:
                while not await grpc_ready(f"unix:{folder}/{kind}", "heddle.v1.InferenceService"):
                    await asyncio.sleep(0.1)
            await compare(folder, pods, engine)
        finally:
            for process in (*pods.values(), engine):
                process.send_signal(signal.SIGTERM)
                process.wait()


async def compare(folder: str, pods: dict[str, subprocess.Popen[bytes]], engine: subprocess.Popen[bytes]) -> None:
    texts = itertools.count()
    print("transport, callers: requests/s, p50 ms, CPU us per request of tokenizer and of engine")
    for callers in CALLERS:
        seconds: dict[str, list[float]] = {kind: [] for kind in pods}
        used = {kind: [0.0, 0.0] for kind in pods}
        for _ in range(TURNS):
            for kind, pod in pods.items():
                async with Client(f"unix:{folder}/{kind}") as client:
                    before = [sum(cpu_seconds(one.pid).values()) for one in (pod, engine)]
                    seconds[kind] += await load(client, callers, texts)
                    for index, process in enumerate((pod, engine)):
                        used[kind][index] += sum(cpu_seconds(process.pid).values()) - before[index]
        for kind, taken in seconds.items():
            tokenizer_us, engine_us = (1e6 * cpu / len(taken) for cpu in used[kind])
            per_s, p50_ms = len(taken) / (TURNS * TURN_S), 1000 * statistics.median(taken)
            print(f"{kind}, {callers}: {per_s:.0f}, {p50_ms:.2f}, {tokenizer_us:.0f}, {engine_us:.0f}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    asyncio.run(main())
