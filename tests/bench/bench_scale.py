"""Many engine pods on one machine, compared with the predictions of `heddle plan`.

    python -m tests.bench.bench_scale --pods 1,2,4,8 --rounds 3
    python -m tests.bench.bench_scale --costs

The engines are simulated: they sleep, and take almost no CPU time. Batches of 16 sequences in 200 ms are so slow that
two cores carry eight such pods, one tokenizer pod and the load: 640 sequences/s. `--costs` measures the CPU time of
gateway and tokenizer per request, per input and per token instead: the defaults of `heddle plan`.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heddle.cli.capacity import Amount, EnginePod, Traffic, predict_engine_tier
from heddle.cli.readiness import grpc_ready
from heddle.client import Client
from tests.bench.scale_costs import measure_costs

TOKENS = 16  # of a text, special tokens included
ENGINE = EnginePod(fixed_s=0.04, per_token_s=625e-6, batch_tokens_max=256, batch_inputs_max=1024)
WARM_UP_S = 2.0
# Waiting for each pod, in the closed loop: two full batches and a bit, so that no pod runs dry.
WAITING_PER_POD = 48
ALONE = 30  # requests, one after the other, that tell what the way costs when nothing waits


@dataclass(frozen=True)
class Measured:
    per_s: float
    p50_s: float
    p99_s: float
    cpu_share: float  # of one core, tokenizer and engines
    way_s: float  # what a request took beyond its batch while nothing else was there


def main() -> None:
    options = parsed_options()
    if options.costs:
        measure_costs(options.seconds)
        return
    counts = [int(count) for count in options.pods.split(",")]
    closed: dict[int, list[Measured]] = {count: [] for count in counts}
    opened: dict[int, list[Measured]] = {count: [] for count in counts}
    for turn, count in itertools.product(range(options.rounds), counts):
        both = asyncio.run(measured(count, options.load, options.seconds))
        closed[count].append(both[0])
        opened[count].append(both[1])
        print(f"round {turn + 1}, {count} pods: {both[0].per_s:.0f}/s", file=sys.stderr, flush=True)
    print(table_of_throughput(closed), table_of_latency(opened, options.load), sep="\n\n")


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", default="1,2,4,8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--load", type=float, default=0.7, help="of the open loop, as a share of what the pods can do")
    parser.add_argument("--costs", action="store_true", help="measure the CPU time of gateway and tokenizer")
    return parser.parse_args()


async def measured(pods: int, load: float, seconds: float) -> tuple[Measured, Measured]:
    """Measures a closed loop, then an open loop."""
    with tempfile.TemporaryDirectory() as folder:
        async with cluster(Path(folder), pods) as (address, processes), Client(address) as client:
            texts = distinct_texts()
            await closed_loop(client, texts, pods, WARM_UP_S)
            way_s = await way_of(client, texts)
            before = sum(map(cpu_s, processes))
            began = time.monotonic()
            per_s, latencies = await closed_loop(client, texts, pods, seconds)
            cpu_share = (sum(map(cpu_s, processes)) - before) / (time.monotonic() - began)
            closed = Measured(per_s, *p50_and_p99(latencies), cpu_share, way_s)
            before, began = sum(map(cpu_s, processes)), time.monotonic()
            latencies = await open_loop(client, texts, load * pods * capacity_per_s(), seconds)
            cpu_share = (sum(map(cpu_s, processes)) - before) / (time.monotonic() - began)
            opened = Measured(len(latencies) / seconds, *p50_and_p99(latencies), cpu_share, way_s)
            return closed, opened


def p50_and_p99(latencies: list[float]) -> tuple[float, float]:
    p50, p99 = np.quantile(latencies, (0.5, 0.99))
    return float(p50), float(p99)


async def way_of(client: Client, texts: Iterator[str]) -> float:
    """Returns the seconds that one text alone takes beyond its batch."""
    taken = []
    for text in itertools.islice(texts, ALONE):
        sent_at = time.monotonic()
        await client.vectors([text])
        taken.append(time.monotonic() - sent_at)
    return statistics.median(taken) - ENGINE.seconds(TOKENS)


def capacity_per_s() -> float:
    return ENGINE.tokens_per_s_max(Amount(TOKENS)) / TOKENS


async def closed_loop(client: Client, texts: Iterator[str], pods: int, seconds: float) -> tuple[float, list[float]]:
    """Returns answers per second, and the time of each."""
    end = time.monotonic() + seconds
    latencies: list[float] = []
    in_time = 0

    async def caller() -> None:
        nonlocal in_time
        while (sent_at := time.monotonic()) < end:
            await client.vectors([next(texts)])
            latencies.append(time.monotonic() - sent_at)
            in_time += time.monotonic() <= end

    await asyncio.gather(*(caller() for _ in range(WAITING_PER_POD * pods)))
    return in_time / seconds, latencies


async def open_loop(client: Client, texts: Iterator[str], per_s: float, seconds: float) -> list[float]:
    """Returns the time of each request of a Poisson process, from when it was due."""
    random = np.random.default_rng(0)
    began = time.monotonic()
    due_s = 0.0
    latencies: list[float] = []

    async def call(due_at: float, text: str) -> None:
        await client.vectors([text])
        if due_at - began > WARM_UP_S:
            latencies.append(time.monotonic() - due_at)

    async with asyncio.TaskGroup() as calls:
        while (due_s := due_s + random.exponential(1 / per_s)) < WARM_UP_S + seconds:
            await asyncio.sleep(max(0.0, began + due_s - time.monotonic()))
            calls.create_task(call(began + due_s, next(texts)))
    return latencies


def distinct_texts() -> Iterator[str]:
    """Makes texts of TOKENS tokens each. They differ, because equal texts would be computed once."""
    return (" ".join(f"{number:0{TOKENS - 2}d}") for number in itertools.count())


@contextlib.asynccontextmanager
async def cluster(folder: Path, pods: int) -> AsyncIterator[tuple[str, list[int]]]:
    """Yields the tokenizer's address, and the process ids of all pods."""
    engines = [f"unix:{folder}/engine-{index}" for index in range(pods)]
    simulation = (
        *("--backend", "simulated", "--simulated-fixed-us", str(round(ENGINE.fixed_s * 1e6))),
        *("--simulated-per-token-ns", str(round(ENGINE.per_token_s * 1e9))),
        *("--batch-tokens-max", str(ENGINE.batch_tokens_max), "--batch-items-max", str(ENGINE.batch_inputs_max)),
    )
    tokenizer = f"unix:{folder}/tokenizer"
    commands = [["engine_svc", "--listen", address, *simulation] for address in engines]
    commands.append(["tokenizer_svc", "--listen", tokenizer, "--engines", ",".join(engines)])
    quiet = ("--log-level", "warning")
    processes = [start("-m", *command, *quiet) for command in commands]
    try:
        for address in engines:
            await until_ready(address, "heddle.v1.EngineService")
        await until_ready(tokenizer, "heddle.v1.InferenceService")
        await asyncio.sleep(1.0)  # until the tokenizer has met all engines
        yield tokenizer, [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *arguments])


async def until_ready(address: str, service: str) -> None:
    async with asyncio.timeout(120):
        while not await grpc_ready(address, service):
            await asyncio.sleep(0.2)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def table_of_throughput(closed: dict[int, list[Measured]]) -> str:
    one = statistics.median(result.per_s for result in closed[min(closed)]) / min(closed)
    rows = ["| engine pods | sequences/s | of what the pods can do | times one pod | of linear | CPU, cores |"]
    rows.append("|---|---|---|---|---|---|")
    for pods, results in closed.items():
        per_s = statistics.median(result.per_s for result in results)
        cpu = statistics.median(result.cpu_share for result in results)
        share = per_s / pods / capacity_per_s()
        rows.append(
            f"| {pods} | {per_s:.0f} | {share:.3f} | {per_s / one:.2f} | {per_s / one / pods:.3f} | {cpu:.2f} |"
        )
    return "\n".join(rows)


def table_of_latency(opened: dict[int, list[Measured]], load: float) -> str:
    head = f"| engine pods at {load:.0%} | requests/s |"
    rows = [head + " p50 ms: measured, plan | p99 ms: measured, plan |", "|---|---|---|---|"]
    way_s = statistics.median(result.way_s for results in opened.values() for result in results)
    for pods, results in opened.items():
        traffic = Traffic(load * pods * capacity_per_s(), Amount(1), Amount(TOKENS))
        planned = predict_engine_tier(ENGINE, traffic, pods).latency + Amount(way_s)
        p50 = statistics.median(result.p50_s for result in results), planned.quantile(0.5)
        p99 = statistics.median(result.p99_s for result in results), planned.quantile(0.99)
        per_s = statistics.median(result.per_s for result in results)
        rows.append(f"| {pods} | {per_s:.0f} | {milliseconds(p50)} | {milliseconds(p99)} |")
    return "\n".join([*rows, "", f"Beyond its batch, a text alone takes {1000 * way_s:.1f} ms."])


def milliseconds(seconds: tuple[float, ...]) -> str:
    return ", ".join(f"{1000 * value:.0f}" for value in seconds)


if __name__ == "__main__":
    main()
