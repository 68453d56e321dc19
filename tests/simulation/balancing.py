"""Compares load balancing policies: the real pools, streams and schedulers of 1,000 engine pods, in virtual time.

`python -m tests.simulation balancing` prints the table. It shows that Heddle's policy has a lower p99 than random pods,
which `heddle plan` assumes. Requests of a few texts come at random times to tokenizer pods, which send each to one
engine pod as one submission. A batch takes FIXED_US + PER_TOKEN_NS * tokens. In the last column, some pods take twice
as long as the others.

At 80 % load with 1,000 pods: p50 and p99 in ms, share of the time that pods compute, and tokens per batch.

    round robin                     10.1, 16.4, 97%, 3,898
    random                          10.8, 21.0, 96%, 3,751
    two choices, submissions        10.4, 16.1, 97%, 3,844
    two choices, tokens (Heddle's)  10.5, 15.7, 96%, 3,938
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from engine_svc.batching import SchedulerLimits
from heddle.rpc.deadlines import NEVER
from heddle.rpc.errors import HeddleError
from heddle.rpc.pod import Pod
from heddle.rpc.pool import Pool
from heddle.rpc.waiting import poll_until
from heddle.v1 import engine_pb2
from tests.simulation.checks import Checks
from tests.simulation.network import Network
from tests.simulation.pods import ENGINES, MODEL, EnginePod, EngineSpeed, encode_numbers
from tests.simulation.streams import grpc_over
from tests.simulation.virtual_time import Process, VirtualLoop, virtual_time
from tokenizer_svc.engines import Engines

CLIENTS = 4
FIXED_US, PER_TOKEN_NS, BATCH_TOKENS_MAX = 2000, 1000, 16_384
SPEED = EngineSpeed(SchedulerLimits(BATCH_TOKENS_MAX, 1024, 10**9, 10**9), fixed_us=FIXED_US, per_token_ns=PER_TOKEN_NS)
SLOW = replace(SPEED, fixed_us=2 * FIXED_US, per_token_ns=2 * PER_TOKEN_NS)
TEXTS_MAX, TOKENS_MAX = 7, 255  # per request and per text; uniform from 1
SUBMISSIONS_PER_POD = 50
WARM_UP_SHARE = 0.3  # of the submissions

Pick = Callable[[Pool[Any, Any]], Pod[Any, Any]]


def round_robin() -> Pick:
    turns = itertools.count(random.randrange(1_000_000))
    return lambda pool: pool._available[next(turns) % len(pool._available)]


def fewest_of_two(pool: Pool[Any, Any]) -> Pod[Any, Any]:
    """Draws two pods at random and takes the one with fewer submissions of this client."""
    return min(random.sample(pool._available, 2), key=lambda pod: len(pod.unanswered))


POLICIES: dict[str, Callable[[], Pick]] = {
    "round robin": round_robin,
    "random": lambda: lambda pool: random.choice(pool._available),
    "two choices, submissions": lambda: fewest_of_two,
    "two choices, tokens (Heddle's)": lambda: Engines._pick,
}
# Load as a share of the highest throughput of pods of the usual speed, and the share of slow pods.
LOADS = {"50 %": (0.5, 0.0), "80 %": (0.8, 0.0), "80 %, 5 % slow": (0.8, 0.05)}


class Figures(NamedTuple):
    p50_s: float
    p99_s: float
    busy: float  # share of the pods' time
    batch_tokens: float

    def __str__(self) -> str:
        return f"{1000 * self.p50_s:.1f}, {1000 * self.p99_s:.1f}, {self.busy:.0%}, {self.batch_tokens:,.0f}"


def main(pods: int, jobs: int, progress: Callable[[int, int, float], None]) -> int:
    cells = list(itertools.product(POLICIES, LOADS))
    figures: dict[tuple[str, str], Figures] = {}
    began = time.perf_counter()
    with ProcessPoolExecutor(jobs) as processes:
        running = processes.map(measure, *zip(*cells, strict=True), itertools.repeat(pods))
        for cell in cells:
            figures[cell] = next(running)
            progress(len(figures), len(cells), began)
    print(f"{pods:,} engine pods, {CLIENTS} tokenizer pods, {SUBMISSIONS_PER_POD * pods:,} submissions for each cell:")
    print("p50 and p99 in ms, share of the time that pods compute, and tokens per batch.\n")
    print("| policy |", " | ".join(LOADS), "|")
    print("|" + "---|" * (1 + len(LOADS)))
    for policy in POLICIES:
        print(f"| {policy} |", " | ".join(str(figures[policy, load]) for load in LOADS), "|")
    return 0


def measure(policy: str, load: str, pods: int) -> Figures:
    with virtual_time(0) as loop:
        cluster = Cluster(loop, POLICIES[policy], *LOADS[load], pods)
        with grpc_over(cluster.network):
            return loop.run_until_complete(Process(loop, "director").start(cluster.run()))


class Cluster:
    def __init__(
        self, loop: VirtualLoop, policy: Callable[[], Pick], load: float, slow_share: float, pods: int
    ) -> None:
        self.loop = loop
        self.policy = policy
        self.draws = random.Random(0)
        self.network = Network(loop, self.draws)
        self.network.late_share = 0.0
        self.checks = Checks(loop.time)
        slow = round(slow_share * pods)
        self.speeds = [SLOW] * slow + [SPEED] * (pods - slow)
        tokens_per_s = BATCH_TOKENS_MAX / (FIXED_US * 1e-6 + BATCH_TOKENS_MAX * PER_TOKEN_NS * 1e-9)
        self.per_s = load * pods * tokens_per_s / ((1 + TEXTS_MAX) / 2 * (1 + TOKENS_MAX) / 2)
        self.latencies_s: list[float] = []

    async def run(self) -> Figures:
        names = self.network.names["engine"] = [f"engine{number}" for number in range(len(self.speeds))]
        pods = [EnginePod(self.loop, name, self.checks, speed) for name, speed in zip(names, self.speeds, strict=True)]
        await asyncio.sleep(0.1)
        clients = [await self.connect(f"tokenizer{number}") for number in range(CLIENTS)]
        count = SUBMISSIONS_PER_POD * len(pods)
        warm_up = round(WARM_UP_SHARE * count)
        await self.send(clients, warm_up)
        before = self.sample(pods)
        await self.send(clients, count - warm_up)
        took_s, busy_s, passes, tokens = np.subtract(self.sample(pods), before).tolist()
        await poll_until(lambda: len(self.latencies_s) == count)
        p50_s, p99_s = np.quantile(self.latencies_s[warm_up:], (0.5, 0.99)).tolist()
        return Figures(p50_s, p99_s, busy_s / took_s / len(pods), tokens / passes)

    async def connect(self, name: str) -> Engines:
        process = Process(self.loop, name)
        engines = process.context.run(Engines, (ENGINES,), MODEL)
        pick = self.policy()
        engines._pick = lambda: pick(engines)  # type: ignore[method-assign]
        await process.start(engines.start())
        await poll_until(lambda: len(engines._available) == len(self.speeds))
        return engines

    async def send(self, clients: list[Engines], count: int) -> None:
        draws = self.draws
        for number in range(count):
            await asyncio.sleep(draws.expovariate(self.per_s))
            lengths = [draws.randint(1, TOKENS_MAX) for _ in range(draws.randint(1, TEXTS_MAX))]
            sequences = encode_numbers([f"{draws.randrange(10**6)}:{length}" for length in lengths])
            item = engine_pb2.Submission()
            item.sequences.token_ids, item.sequences.lengths = sequences.token_ids, sequences.lengths.tobytes()
            item.context.flow = f"caller/{number}"
            self.ask(draws.choice(clients), item)

    def ask(self, engines: Engines, item: engine_pb2.Submission) -> None:
        began = self.loop.time()

        def reply(outcome: engine_pb2.Outcome | HeddleError) -> None:
            assert isinstance(outcome, engine_pb2.Outcome), outcome
            self.latencies_s.append(self.loop.time() - began)

        engines.submit(item, NEVER, reply)

    def sample(self, pods: list[EnginePod]) -> tuple[float, ...]:
        counts = self.checks.counts
        return self.loop.time(), sum(pod.scheduler.busy_s for pod in pods), counts["passes"], counts["tokens"]
