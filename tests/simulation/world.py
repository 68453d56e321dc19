"""One run: a few callers, tokenizer pods and engine pods, and failures between them, all drawn from a seed.

The callers send requests while pods and connections fail. Then everything is healed: all requests must be answered, a
last request of each caller must succeed, all counters must be 0, and all pods must stop when asked to.
"""

import asyncio
import logging
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import heddle.rpc.pool
from heddle.client import CallOptions
from heddle.rpc.errors import ErrorKind
from heddle.rpc.stream import SILENCE_S_MAX
from heddle.rpc.targets import DNS_INTERVAL_S
from tests.simulation.checks import Checks
from tests.simulation.network import KEEPALIVE_S, Link, Network
from tests.simulation.pods import DRAIN_S_MAX, Caller, EnginePod, EngineSpeed, Pod, TokenizerPod
from tests.simulation.streams import grpc_over
from tests.simulation.virtual_time import START_S, HangError, Process, VirtualLoop, virtual_time

# Virtual seconds.
RUN_S_MAX = 1200.0
ANSWERED_S_MAX = 400.0
IDLE_S_MAX = 300

INPUTS_MAX = 2048


@dataclass(frozen=True)
class Result:
    seed: int
    violations: list[str]
    events: list[tuple[Any, ...]]
    counts: Counter[str]

    @property
    def digest(self) -> int:
        """Equal for equal runs."""
        return zlib.crc32(repr(self.events).encode())


def simulate(seed: int) -> Result:
    draws = random.Random(seed)
    with virtual_time(seed, lambda: draws.uniform(0, 0.003)) as loop:
        world = World(loop, draws)
        loop.deadline = START_S + RUN_S_MAX
        loop.set_exception_handler(lambda _, context: world.checks.fail(f"on the event loop: {context}"))
        names_s = draws.choice((0.5, DNS_INTERVAL_S))
        with grpc_over(world.network), logged(world), patch.object(heddle.rpc.pool, "DNS_INTERVAL_S", names_s):
            try:
                loop.run_until_complete(world.director.start(world.run()))
            except HangError as hang:
                world.checks.fail(f"it hangs: {hang}")
        result = Result(seed, list(world.checks.violations), world.events, world.checks.counts)
        loop.set_exception_handler(lambda _, context: None)  # the teardown may fail
        logging.disable()
    logging.disable(logging.NOTSET)
    return result


@contextmanager
def logged(world: "World") -> Iterator[None]:
    handler = logging.Handler(logging.WARNING)
    handler.emit = world.on_log  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class World:
    def __init__(self, loop: VirtualLoop, draws: random.Random) -> None:
        self.loop = loop
        self.draws = draws
        self.events: list[tuple[Any, ...]] = []
        self.checks = Checks(loop.time)
        self.network = Network(loop, draws, self.trace)
        self.network.mean_delay_s = draws.choice((0.0001, 0.0005, 0.005))
        self.director = Process(loop, "director")
        self.pods: list[Pod] = []
        self.callers: list[Caller] = []
        self.requests: list[asyncio.Task[None]] = []
        self.replacements: list[asyncio.Task[None]] = []
        self.losses = 0
        self.speed = EngineSpeed.draw(draws.choice)
        if self.speed.is_tight:
            self.checks.excused.add(ErrorKind.OVERLOADED)

    def trace(self, kind: str, *details: Any) -> None:
        self.events.append((round(self.loop.time() - START_S, 6), kind, *details))

    def on_log(self, record: logging.LogRecord) -> None:
        """Warnings are expected; an error in the log is a violation."""
        message = record.getMessage()
        self.trace("log", record.levelname, message)
        self.checks.counts["pods lost with items"] += "sending them to other pods" in message
        if record.levelno >= logging.ERROR:
            self.checks.fail(f"logged: {message} {record.exc_info or ''}")

    async def run(self) -> None:
        draws = self.draws
        for kind in ("engine",) * draws.randint(1, 3) + ("tokenizer",) * draws.choice((1, 1, 2)):
            self.join(kind)
        traffic = [self.call(f"caller{number}") for number in range(draws.randint(1, 3))]
        await asyncio.gather(self.disturb(draws.choice((0, 0, 1, 3, 6))), *traffic)
        await asyncio.gather(*self.replacements)
        self.heal()
        if self.requests:
            await asyncio.wait(self.requests, timeout=ANSWERED_S_MAX)
        await self.probe()
        await self.check_at_rest()
        await self.stop()

    async def call(self, name: str) -> None:
        draws = self.draws
        caller = Caller(self.loop, name, self.checks)
        self.callers.append(caller)
        pause_s = draws.choice((0.001, 0.05, 0.5, 2))
        for _ in range(draws.randint(1, 8)):
            await asyncio.sleep(draws.expovariate(1 / pause_s))
            self.send(caller)
        how = draws.choice(("dies", "hangs up", *("stays",) * 18))
        if how != "stays":
            await asyncio.sleep(draws.uniform(0, 0.1))
            self.trace(how, name)
            self.checks.excused.add(ErrorKind.UNAVAILABLE)
            caller.process.exit() if how == "dies" else await caller.process.start(caller.client.close())
            self.callers.remove(caller)

    def send(self, caller: Caller) -> None:
        draws, number = self.draws, len(self.requests)
        count, tokens_max = draws.choice(((1, 40), (1, 400), (draws.randint(2, 40), 40), (draws.randint(2, 100), 8)))
        if draws.random() < 0.01:
            count, tokens_max = INPUTS_MAX, 8
        texts = [f"{draws.randint(0, 999)}:{draws.randint(1, tokens_max)}" for _ in range(count)]
        timeout_s = draws.choice((None, None, draws.uniform(0.001, 0.05), draws.uniform(0.05, 10)))
        options = CallOptions(timeout_s, draws.choice((0, 0, 0, 1, 2)), caller.process.name)
        request = caller.embed(texts, options)
        self.trace("request", caller.process.name, number, count, options)
        self.checks.counts.update(requests=1, inputs=count)
        request.add_done_callback(lambda done: self.on_answer(number, done))
        self.requests.append(request)
        if draws.random() < 0.15:
            self.loop.call_later(draws.uniform(0, 0.1), request.cancel)

    def on_answer(self, number: int, done: "asyncio.Task[None]") -> None:
        how = "cancelled" if done.cancelled() else "failed" if done.exception() else "answered"
        self.trace(how, number, "" if done.cancelled() else repr(done.exception()))
        self.checks.counts[how] += 1

    async def disturb(self, times: int) -> None:
        pause_s = self.draws.choice((0.05, 0.5, 3))
        for _ in range(times):
            await asyncio.sleep(self.draws.expovariate(1 / pause_s))
            name = self.draws.choice(tuple(DISTURBANCES))
            self.checks.counts[name] += 1
            pods = [pod for pod in self.pods if pod.serves]
            links = [link for link in self.network.links if link.is_up]
            if pods and links:
                pod, link = self.draws.choice(pods), self.draws.choice(links)
                self.trace("disturbance", name, pod.process.name, f"{link.client.name}>{link.server.name}")
                DISTURBANCES[name](self, pod, link)

    def count_loss(self, last: Pod | None = None) -> None:
        """A single loss must not fail a request, unless it takes the last pod of its kind. An item that was lost with
        two pods may be blamed for it."""
        self.losses += 1
        others = [pod for pod in self.pods if pod.serves and pod is not last]
        if self.losses > 1 or {pod.kind for pod in others} < {"engine", "tokenizer"}:
            self.checks.excused |= {ErrorKind.UNAVAILABLE, ErrorKind.INTERNAL}

    def join(self, kind: str) -> None:
        name = f"{kind}{sum(pod.kind == kind for pod in self.pods)}"
        self.trace("joins", name)
        if kind == "engine":
            self.pods.append(EnginePod(self.loop, name, self.checks, self.speed))
        else:
            self.pods.append(TokenizerPod(self.loop, name, self.checks))
        self.list(self.pods[-1], listed=True)

    def kill(self, pod: Pod) -> None:
        self.count_loss(pod)
        pod.process.exit()
        self.replace(pod)

    def unplug(self, pod: Pod) -> None:
        for link in self.network.links:
            if link.is_up and pod.process in (link.client, link.server):
                link.go_silent()
        self.kill(pod)

    def freeze(self, pod: Pod) -> None:
        self.count_loss(pod)
        pod.process.stopped = True
        self.loop.call_later(self.draws.choice((0.1, 3, 12)), pod.process.thaw)

    def drain(self, pod: Pod) -> None:
        self.count_loss(pod)
        pod.stop.set()
        self.replace(pod)

    def replace(self, pod: Pod) -> None:
        async def replacement() -> None:
            await asyncio.sleep(self.draws.choice((0.01, 1, 8)))
            self.list(pod, listed=False)
            self.join(pod.kind)

        self.replacements.append(self.loop.create_task(replacement()))

    def leave(self, pod: Pod) -> None:
        """Removes the pod from its DNS name for a while. It may be busy."""
        self.count_loss(pod)
        self.list(pod, listed=False)
        for caller in self.callers * 3:
            self.send(caller)
        self.loop.call_later(self.draws.choice((0.6, 2, 12)), lambda: self.list(pod, listed=pod.serves))

    def list(self, pod: Pod, *, listed: bool) -> None:
        others = [name for name in self.network.names.get(pod.kind, ()) if name != pod.process.name]
        self.network.names[pod.kind] = [*others, pod.process.name] if listed else others

    def harm(self, link: Link, how: str) -> None:
        self.count_loss()
        if how == "stall":
            link.stall(self.draws.choice((0.1, 2, 10)))
        else:
            link.break_off() if how == "cut" else link.go_silent()

    def lose_names(self) -> None:
        """For less time than an item waits for a pod."""
        self.count_loss()
        self.network.resolves = False
        self.loop.call_later(self.draws.uniform(0, 4), setattr, self.network, "resolves", True)

    def heal(self) -> None:
        self.trace("heals")
        self.network.resolves = True
        for process in self.loop.processes:
            process.thaw()
        for pod in self.pods:
            self.list(pod, listed=pod.serves)
        for kind in ("engine", "tokenizer"):
            if not any(pod.serves for pod in self.pods if pod.kind == kind):
                self.join(kind)

    async def probe(self) -> None:
        """Requests must succeed, once the pools know which connections are broken."""
        if self.checks.excused:
            await asyncio.sleep(2 * SILENCE_S_MAX)
        probes = [caller.embed(["1:3", "2:5"], CallOptions(10.0)) for caller in self.callers]
        for answer in await asyncio.gather(*probes, return_exceptions=True):
            if answer is not None:
                self.checks.fail(f"a request failed after all was healed: {answer!r}")

    async def check_at_rest(self) -> None:
        """Waits until servers have noticed lost clients, and have done what was cancelled while they could not read."""
        await asyncio.sleep(KEEPALIVE_S + 1 if any(link.is_silent for link in self.network.links) else 1)
        for _ in range(IDLE_S_MAX):
            if self.checks.unanswered():
                await asyncio.sleep(1)
        self.checks.violations += self.checks.unanswered()
        everybody: list[Pod | Caller] = [*self.pods, *self.callers]
        for one in everybody:
            if one.process.alive:
                one.check_at_rest()

    async def stop(self) -> None:
        for caller in self.callers:
            await caller.process.start(caller.client.close())
        for pod in self.pods:
            pod.stop.set()
        await asyncio.wait([pod.task for pod in self.pods if pod.process.alive], timeout=DRAIN_S_MAX / 2)
        for pod in self.pods:
            if pod.process.alive:
                self.checks.fail(f"{pod.process.name} does not stop")


DISTURBANCES: dict[str, Callable[[World, Pod, Link], None]] = {
    "kill": lambda world, pod, link: world.kill(pod),
    "unplug": lambda world, pod, link: world.unplug(pod),
    "freeze": lambda world, pod, link: world.freeze(pod),
    "drain": lambda world, pod, link: world.drain(pod),
    "leave": lambda world, pod, link: world.leave(pod),
    "join": lambda world, pod, link: world.join(pod.kind),
    "cut": lambda world, pod, link: world.harm(link, "cut"),
    "silence": lambda world, pod, link: world.harm(link, "silence"),
    "stall": lambda world, pod, link: world.harm(link, "stall"),
    "lose names": lambda world, pod, link: world.lose_names(),
}
