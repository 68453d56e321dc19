"""Measures the latency of single queries while others read large answers. The engine is simulated, all services run.

    python -m tests.bench.bench_large_answers [--tree /path/to/another/checkout ...] [--readers 0,1,12]

Each reader asks /embed_all for the token vectors of many texts, again and again, and reads as fast as it can. The probe
asks /embed for the vector of one text. Several trees are measured one after the other, in each round.
"""

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.processes import resident_bytes

TOKENS_MAX = 256
PROBE_S = 0.02
READY_S_MAX = 60.0


@contextlib.contextmanager
def services(tree: Path, port: int) -> Iterator[dict[str, int]]:
    """Yields the pid of each service."""
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{tree}/protos", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        engine, tokenizer = f"unix:{folder}/engine", f"unix:{folder}/tokenizer"
        commands = {
            "engine_svc": ("--listen", engine, "--backend", "simulated", "--batch-tokens-max", "1024"),
            "tokenizer_svc": ("--listen", tokenizer, "--engines", engine),
            "http_gateway": ("--port", str(port), "--tokenizers", tokenizer, "--log-level", "warning"),
        }
        running = {
            module: subprocess.Popen((sys.executable, "-m", module, *flags), env=environment, cwd=tree)
            for module, flags in commands.items()
        }
        try:
            wait_until_ready(port)
            yield {module: process.pid for module, process in running.items()}
        finally:
            for process in running.values():
                process.kill()
                process.wait()


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + READY_S_MAX
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if ask(http.client.HTTPConnection("127.0.0.1", port), "/embed", {"inputs": "ready"})[0] == 200:
                return
        time.sleep(0.1)
    raise TimeoutError("the services did not become ready")


def ask(connection: http.client.HTTPConnection, path: str, body: object) -> tuple[int, int]:
    """Returns the status and the bytes of the answer."""
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    buffer, size = bytearray(1 << 20), 0
    while count := response.readinto(buffer):
        size += count
    return response.status, size


def read_large(port: int, texts: int, counts: "multiprocessing.Queue[tuple[int, int]]") -> None:
    """A reader's process."""
    words = " ".join(["words"] * 2 * TOKENS_MAX)
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            body = {"inputs": [f"{os.getpid()} {number} {words}" for number in range(texts)], "truncate": True}
            while True:
                counts.put(ask(connection, "/embed_all", body))


def measure(port: int, readers: int, texts: int, seconds: float) -> tuple[list[float], list[tuple[int, int]]]:
    """Returns the milliseconds of each single query, and the statuses and bytes of the large answers meanwhile."""
    context = multiprocessing.get_context("fork")
    counts: multiprocessing.Queue[tuple[int, int]] = context.Queue()
    processes = [context.Process(target=read_large, args=(port, texts, counts), daemon=True) for _ in range(readers)]
    for process in processes:
        process.start()
    time.sleep(2 if readers else 0.5)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    waits, number, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
        began = time.perf_counter()
        status, _ = ask(connection, "/embed", {"inputs": f"single query {number}"})
        if status != 200:
            print("single query: status", status)
        waits.append(1e3 * (time.perf_counter() - began))
        time.sleep(PROBE_S)
    for process in processes:
        process.kill()
        process.join()
    answers = []
    while not counts.empty():
        answers.append(counts.get())
    return waits, answers


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tree", action="append", type=Path, help="a checkout; this one by default")
    parser.add_argument("--readers", default="0,1,12")
    parser.add_argument("--texts", type=int, default=160, help="of a large answer, each of 256 tokens")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    trees = options.tree or [Path(__file__).parents[2]]
    for _ in range(options.rounds):
        for tree in trees:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            with services(tree, port) as pids:
                for readers in map(int, options.readers.split(",")):
                    waits, answers = measure(port, readers, options.texts, options.seconds)
                    waits.sort()
                    refused = sum(status != 200 for status, _ in answers)
                    mib = max([size for _, size in answers], default=0) / 2**20
                    memory = ", ".join(f"{name} {resident_bytes(pid) >> 20}" for name, pid in pids.items())
                    print(
                        f"{tree.name}: {readers:2} readers: {len(waits)} single queries: median "
                        f"{statistics.median(waits):.1f} ms, p99 {waits[int(len(waits) * 0.99)]:.1f} ms, "
                        f"max {waits[-1]:.1f} ms; {len(answers)} answers of {mib:.0f} MiB, {refused} refused; "
                        f"RSS in MiB: {memory}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
