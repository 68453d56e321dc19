"""Measures latencies and refusals when more requests arrive than the engine can compute.

    python -m tests.bench.bench_overload --quick
    python -m tests.bench.bench_overload --tree ../before --tree . --seconds 10

`heddle serve` with a simulated engine, slow enough that the other services and this load leave the cores idle, first
shows what it can do: closed loops with many connections. Then an open loop sends 1, 2, 3 and 6 times as much, with
deadlines and without, and falls to half of what the engine can do. Good answers are those with status 200. `goodput` is
their rate over what could be had: the smaller of the offered load and what the engine can do. `refused` is the share
with status 429, `advised` the share of those with a Retry-After. `all good` is the time from the fall of the load until
the last request was sent that was refused or failed, `all fast` until the last that took longer than RECOVERED_MS. In
the cases `bulk`, another caller sends requests of BULK_INPUTS texts, one after the other, to the same engine, so that
half of it is left; there the load falls to a quarter.
"""

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.load import Load, measure
from tests.bench.overload_load import Answer, Answers, OpenLoop, Phase
from tests.bench.servers import MODEL, Running, simulated
from tests.bench.tables import table
from tests.bench.texts import WORDS

ROOT = Path(__file__).parents[2]
PATH = "/v1/embeddings"
TOKENS_PER_S = 2400  # of the simulated engine: 200 requests/s of 10 words and 2 special tokens
BATCH_TOKENS_MAX = 64
BULK_INPUTS = 2048
CONNECTIONS = 64  # of the closed loops
CALM_S = 4.0  # after the load has fallen
RECOVERED_MS = 500.0
SHORT, MIXED = "short", "mixed"
HEADINGS = ("case", "offered/s", "goodput", "p50 ms", "p99 ms", "refused", "advised", "refusal p99 ms", "advice ms")


@dataclass(frozen=True)
class Case:
    times: float  # offered load, as a multiple of the engine's capacity
    deadline_ms: int  # 0: none
    lengths: str
    has_bulk: bool = False

    @property
    def name(self) -> str:
        deadline = f"deadline {self.deadline_ms} ms" if self.deadline_ms else "no deadline"
        return f"{self.times:g}x, {self.lengths}, {deadline}{', bulk' if self.has_bulk else ''}"


def main() -> None:
    options = parsed_options()
    trees = {tree.resolve().name: tree.resolve() for tree in options.tree or [ROOT]}
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores\n", flush=True)
    for name, tree in trees.items():
        server = simulated(name, engines=options.engines, fixed_us=0, per_token_ns=round(1e9 / options.tokens_per_s))
        variables = {
            "PYTHONPATH": os.pathsep.join((str(tree), str(tree / "protos"))),
            "HEDDLE_ENGINE_BATCH_TOKENS_MAX": str(options.batch_tokens),
        }
        running = Running(replace(server, folder=tree, environment={**server.environment, **variables}))
        try:
            running.wait_until_ready()
            print(f"{name}:", flush=True)
            rows = list(measured(running, options))
            print(
                *table((*HEADINGS, "other statuses", "all good s", "all fast s", "bulks"), rows),
                "",
                sep="\n",
                flush=True,
            )
        finally:
            running.stop()


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_overload",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tree", type=Path, action="append", help="a checkout; may be repeated (this one)")
    parser.add_argument("--quick", action="store_true", help="3x only, for 6 s")
    parser.add_argument("--seconds", type=float, help="of each overload (12)")
    parser.add_argument("--engines", type=int, default=1, help="engine pods (1)")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS_MAX, help="tokens of a pass (64)")
    parser.add_argument("--tokens-per-s", type=int, default=TOKENS_PER_S, help=f"of an engine ({TOKENS_PER_S})")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    options = parser.parse_args()
    options.seconds = options.seconds or (6.0 if options.quick else 12.0)
    return options


def cases(options: argparse.Namespace) -> list[Case]:
    times = (3,) if options.quick else (1, 2, 3, 6)
    all_cases = [Case(one, deadline, SHORT) for one in times for deadline in (1000, 0)]
    all_cases += [Case(3, deadline, MIXED) for deadline in (1000, 0)]
    all_cases += [Case(one, deadline, SHORT, has_bulk=True) for one in (0.4, 3) for deadline in (1000, 0)]
    return [case for case in all_cases if options.only in case.name]


def measured(server: Running, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    possible = {lengths: find_rate(server, lengths) for lengths in (SHORT, MIXED)}
    print(f"can do {possible[SHORT]:.0f} short or {possible[MIXED]:.0f} mixed requests/s", flush=True)
    for case in cases(options):
        yield asyncio.run(overload(server, case, possible[case.lengths], options.seconds))


def find_rate(server: Running, lengths: str) -> float:
    """Measures the engine's capacity in requests per second."""
    bodies = make_bodies(lengths)
    load = Load(server.port, PATH, bodies, 0, [], 3.0, 1.0, connections=CONNECTIONS, drain_s_max=20.0)
    report = measure(load)
    return (sum(report.answered) - report.errors) / report.seconds


def make_bodies(lengths: str, count: int = 2000) -> list[str]:
    draws = random.Random(lengths)
    counts = [10 if lengths == SHORT else max(1, min(200, round(draws.lognormvariate(2.3, 1)))) for _ in range(count)]
    return [
        json.dumps({"model": MODEL, "input": " ".join(draws.choices(WORDS, k=words)), "encoding_format": "base64"})
        for words in counts
    ]


def make_request(body: str, flow: str, deadline_ms: int) -> bytes:
    deadline = f"Request-Timeout-Ms: {deadline_ms}\r\n" if deadline_ms else ""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Heddle-Flow: {flow}\r\n{deadline}Content-Type: application/json\r\n"
    content = body.encode()
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def overload(server: Running, case: Case, possible: float, seconds: float) -> tuple[str, ...]:
    requests = [make_request(body, "single", case.deadline_ms) for body in make_bodies(case.lengths)]
    loop = OpenLoop(server.port, requests)
    calm = 0.25 if case.has_bulk else 0.5
    phases = [Phase(1.0, 0.5 * possible), Phase(seconds, case.times * possible), Phase(CALM_S, calm * possible)]
    bulks: list[int] = []
    bulk = asyncio.create_task(send_bulks(server.port, bulks)) if case.has_bulk else None
    _, loaded, after = await loop.run(phases)
    if bulk:
        bulk.cancel()
        with suppress(asyncio.CancelledError):
            await bulk
    await wait_until_calm(server.port)
    return row(case, possible, loaded, after, bulks)


async def send_bulks(port: int, statuses: list[int]) -> None:
    draws = random.Random(0)
    while True:
        texts = [" ".join(draws.choices(WORDS, k=10)) for _ in range(BULK_INPUTS)]
        body = json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"})
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(make_request(body, "bulk", 0))
            status = int((await reader.readline()).split()[1])
            statuses.append(status)
            if status != 200:
                await asyncio.sleep(1)
        finally:
            writer.close()


async def wait_until_calm(port: int) -> None:
    """Waits until the services are idle, so that the next case is not affected."""
    [request] = [make_request(body, "calm", 0) for body in make_bodies(SHORT, 1)]
    for _ in range(60):
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        status = int((await reader.readline()).split()[1])
        writer.close()
        if status == 200 and time.perf_counter() - began < 0.1:
            return
        await asyncio.sleep(0.5)


def last_s(calm: Answers, is_bad: Callable[[Answer], bool]) -> str:
    return f"{max((one.due_s - calm.start_s for one in calm.answers if is_bad(one)), default=0.0):.1f}"


def row(case: Case, possible: float, answers: Answers, calm: Answers, bulks: Sequence[int]) -> tuple[str, ...]:
    offered = len(answers.answers) / answers.seconds
    refused = answers.refused
    advised = [one.retry_after_ms for one in refused if one.retry_after_ms]
    others = {status: count for status, count in answers.statuses.items() if status not in (200, 429)}
    return (
        case.name,
        f"{offered:.0f}",
        f"{answers.good_per_second / min(possible, offered):.0%}",
        f"{answers.latency_ms(50):.0f}",
        f"{answers.latency_ms(99):.0f}",
        f"{len(refused) / len(answers.answers):.0%}",
        f"{len(advised) / len(refused):.0%}" if refused else "",
        f"{answers.refusal_ms(99):.0f}" if refused else "",
        f"{min(advised)} to {max(advised)}" if advised else "",
        ", ".join(f"{status}: {count}" for status, count in sorted(others.items())),
        last_s(calm, lambda one: one.status != 200),
        last_s(calm, lambda one: 1e3 * one.seconds > RECOVERED_MS),
        " ".join(map(str, bulks)),
    )


if __name__ == "__main__":
    main()
