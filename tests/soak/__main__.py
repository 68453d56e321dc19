"""Keeps `heddle serve` with two engines under all abuses at once, while honest callers send an open loop of requests,
and pods are killed, frozen and stopped now and then.

    python -m tests.soak --minutes 10

Honest requests must succeed; 429 with a Retry-After is allowed. Memory and threads of the services must not grow after
a warm-up. Once the abuse has ended, nothing may be left in their queues, and no files open. The exit code is 1
otherwise.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.abuse import PATH
from tests.bench.connection import request_bytes
from tests.bench.overload_load import Answers, OpenLoop, Phase
from tests.metrics import Scrape, free_port, scrape
from tests.processes import module_of, running
from tests.soak.samples import Samples, count_files
from tests.system.served import Served, served

PER_S = 40.0
WARM_UP = 0.3  # of the time
SAMPLE_S = 0.5
HARM_EVERY_S = 12.0
GROWTH_SHOWS_S = 60.0
CALM_S_MAX = 20.0  # after the abuse, until nothing is left of it
FILES_MORE_MAX = 20  # than before the abuse, in a process that has lived since then

# What is in progress. Nothing may be when nobody calls.
IDLE = (
    *("heddle_gateway_requests", "heddle_gateway_bodies_bytes", "heddle_gateway_answers_bytes"),
    *("heddle_gateway_waiting_bodies", "heddle_rpc_unanswered_items", "heddle_tokenizer_running_requests"),
    *("heddle_tokenizer_answers_bytes", "heddle_rpc_stream_items", "heddle_rpc_stream_unsent_bytes"),
    *("heddle_engine_queued_requests", "heddle_engine_running_requests"),
)


@dataclass
class Soak:
    at: Served
    ports: list[int]  # of the metrics of tokenizer and engines
    seconds: float
    began: float = field(default_factory=time.monotonic)
    harms: int = 0

    async def run(self) -> bool:
        """Returns whether all held."""
        files = count_files(self.at.pid)
        samples = Samples(self.at.pid, warm_up=int(WARM_UP * self.seconds / SAMPLE_S))
        port = int(self.at.url.rpartition(":")[2])
        honest = OpenLoop(port, [request_bytes(PATH, '{"input": "warp and weft"}')])
        command = [sys.executable, "-m", "tests.soak.abuses", str(port), self.at.grpc]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        abuses = await asyncio.create_subprocess_exec(*command, env=variables)
        work = [asyncio.create_task(self.watch(samples, honest)), asyncio.create_task(self.harm())]
        try:
            [answers] = await honest.run([Phase(self.seconds, PER_S)])
        finally:
            for task in work:
                task.cancel()
            abuses.kill()
            await abuses.wait()
        print(file=sys.stderr)
        held = [self.judge_answers(answers), self.judge_growth(samples), await self.judge_rest(files)]
        return all(held)

    async def watch(self, samples: Samples, honest: OpenLoop) -> None:
        """Takes samples, and rewrites the line of progress."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            passed = time.monotonic() - self.began
            samples.take()
            good = sum(answer.status == 200 for answer in honest.answers)
            line = f"{passed:.0f} of {self.seconds:.0f} s, {good} of {len(honest.answers)} answered with 200"
            print(f"\r{line}, {self.harms} pods harmed \033[K", end="", file=sys.stderr, flush=True)

    async def harm(self) -> None:
        """One engine is left alone, so that a slow leak shows. The tokenizer is replaced during the warm-up only."""
        await asyncio.sleep(WARM_UP / 2 * self.seconds)
        self.send("tokenizer_svc", signal.SIGKILL)
        ways: list[Callable[[], None]] = [
            lambda: self.send("engine_svc", signal.SIGKILL),
            lambda: self.send("engine_svc", signal.SIGTERM),
            lambda: self.freeze("engine_svc", 3.0),
            lambda: self.freeze("tokenizer_svc", 1.0),
            lambda: self.freeze("http_gateway", 0.5),
        ]
        while True:
            for way in random.sample(ways, len(ways)):
                await asyncio.sleep(min(HARM_EVERY_S, self.seconds / 10))
                way()

    def send(self, module: str, what: signal.Signals) -> None:
        """To the pod of this kind that was started last."""
        self.harms += 1
        os.kill(max(running(self.at.pid, module)), what)

    def freeze(self, module: str, seconds: float) -> None:
        pid = max(running(self.at.pid, module))
        self.harms += 1
        os.kill(pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(seconds, os.kill, pid, signal.SIGCONT)

    def judge_answers(self, answers: Answers) -> bool:
        refused = [answer for answer in answers.refused if answer.retry_after_ms]
        lost = len(answers.answers) - len(answers.good) - len(refused)
        slowest = max((answer.seconds for answer in answers.good), default=0.0)
        latencies = f"p50 {answers.latency_ms(50):.0f} ms, p99 {answers.latency_ms(99):.0f} ms, slowest {slowest:.1f} s"
        print(f"{len(answers.answers)} honest requests: {dict(answers.statuses)}, {latencies}, {lost} failed")
        return not lost

    def judge_growth(self, samples: Samples) -> bool:
        series = samples.series()
        for one in series:
            print(f"{one.process:24} {one.quantity:8} {one.describe()}{'  <- grows' if one.grows else ''}")
        return self.seconds < GROWTH_SHOWS_S or not any(one.grows for one in series)

    async def judge_rest(self, files: Mapping[int, int]) -> bool:
        """`files` are the numbers of open files before the abuse."""
        ends = time.monotonic() + CALM_S_MAX
        while (left := await self.find_left(files)) and time.monotonic() < ends:
            await asyncio.sleep(0.5)
        for name, value in left.items():
            print(f"left over: {name} {value:.0f}")
        return not left

    async def find_left(self, files: Mapping[int, int]) -> dict[str, float]:
        left: dict[str, float] = {}
        for pid, count in count_files(self.at.pid).items():
            if pid in files and count > files[pid] + FILES_MORE_MAX:
                left[f"open files of {module_of(pid)} {pid}, more than before"] = count - files[pid]
        for url in (self.at.url, *(f"http://127.0.0.1:{port}" for port in self.ports)):
            found: Scrape = await scrape(url)
            names = {name for name, _ in found.samples}
            left |= {f"{url} {name}": found.value(name) for name in IDLE if name in names and found.value(name)}
        return left


async def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    seconds = 60 * parser.parse_args().minutes
    tokenizer, engine = free_port(), free_port()
    variables = {"HEDDLE_TOKENIZER_METRICS_PORT": str(tokenizer), "HEDDLE_ENGINE_METRICS_PORT": str(engine)}
    flags = ("--engine", "simulated", "--engines", "2", "--log-level", "error")
    async with served(*flags, **variables) as at:
        held = await Soak(at, [tokenizer, engine], seconds).run()
    print("all held" if held else "something did not hold")
    return not held


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
