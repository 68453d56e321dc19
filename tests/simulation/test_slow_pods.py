"""Latency of requests while a pod is frozen, in virtual time, so that milliseconds can be asserted."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from engine_svc.batching import SchedulerLimits
from heddle.client import CallOptions
from heddle.rpc.waiting import poll_until
from tests.simulation.checks import Checks
from tests.simulation.network import Network
from tests.simulation.pods import Caller, EnginePod, EngineSpeed, Pod, TokenizerPod
from tests.simulation.streams import grpc_over
from tests.simulation.virtual_time import Process, VirtualLoop, virtual_time

# An engine computes about 13,000 tokens per second, in passes of up to 160 ms.
SPEED = EngineSpeed(SchedulerLimits(2048, 256, 10**7, 10**6), fixed_us=10_000, per_token_ns=75_000)
REQUEST_TOKENS = 60
PER_S = 160
BEFORE_S, FROZEN_S = 1.0, 3.0


@dataclass
class Cluster:
    loop: VirtualLoop
    network: Network
    checks: Checks
    pods: dict[str, list[Pod]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)  # of each answer

    async def start(self, engines: int, tokenizers: int, speed: EngineSpeed) -> None:
        for kind, count in (("engine", engines), ("tokenizer", tokenizers)):
            names = self.network.names[kind] = [f"{kind}{number}" for number in range(count)]
            self.pods[kind] = [
                EnginePod(self.loop, name, self.checks, speed)
                if kind == "engine"
                else TokenizerPod(self.loop, name, self.checks)
                for name in names
            ]
            await asyncio.sleep(0.5)
        self.caller = Caller(self.loop, "caller", self.checks)
        await self.caller.process.start(self.caller.client.start())
        pool = self.caller.client._pool
        await poll_until(lambda: len(pool._available) == tokenizers)

    async def send(self, per_s: float, seconds: float) -> None:
        """Sends requests at random times and waits for all answers."""
        until, requests = self.loop.time() + seconds, []
        while self.loop.time() < until:
            await asyncio.sleep(self.network.draws.expovariate(per_s))
            requests.append(asyncio.ensure_future(self.ask()))
        await asyncio.gather(*requests)

    async def ask(self) -> None:
        began = self.loop.time()
        text = f"{self.network.draws.randrange(10**6)}:{REQUEST_TOKENS}"
        await self.caller.embed([text], CallOptions(60.0, flow="caller"))
        self.seconds.append(self.loop.time() - began)

    def freeze_later(self, kind: str) -> None:
        pod = self.pods[kind][0]
        self.loop.call_later(BEFORE_S, setattr, pod.process, "stopped", True)
        self.loop.call_later(BEFORE_S + FROZEN_S, pod.process.thaw)

    def hedged(self) -> int:
        engines = sum(pod.engines.counts.hedged for pod in self.pods["tokenizer"] if isinstance(pod, TokenizerPod))
        return engines + self.caller.client._pool.counts.hedged


@contextmanager
def cluster() -> Iterator[Cluster]:
    with virtual_time(0) as loop:
        network = Network(loop, random.Random(0))
        network.late_share = 0.0
        with grpc_over(network):
            yield Cluster(loop, network, Checks(loop.time))


@pytest.mark.parametrize("kind", ["engine", "tokenizer"])
def test_a_request_takes_less_than_a_second_while_one_of_two_pods_is_frozen(kind: str) -> None:
    with cluster() as one:

        async def run() -> None:
            await one.start(engines=2, tokenizers=2, speed=SPEED)
            one.freeze_later(kind)
            await one.send(PER_S, seconds=BEFORE_S + FROZEN_S + 1)

        one.loop.run_until_complete(Process(one.loop, "director").start(run()))
        assert max(one.seconds) < 1
        assert one.hedged()
        assert not one.checks.violations


def test_overload_is_not_hedged() -> None:
    """Requests wait some seconds under three times the load that the engines can compute."""
    with cluster() as one:

        async def run() -> None:
            await one.start(engines=2, tokenizers=2, speed=replace(SPEED, fixed_us=100_000, per_token_ns=500_000))
            await one.send(PER_S, seconds=4)

        one.loop.run_until_complete(Process(one.loop, "director").start(run()))
        assert max(one.seconds) > 5
        assert one.hedged() <= 0.01 * len(one.seconds)
        assert not one.checks.violations
