"""Measures what honest callers see of one fault at a time, for the table in deploy/README.md.

    python -m tests.soak.faults

`heddle serve` with two simulated engines gets an open loop of single requests. A fault begins after 2 s.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from tests.abuse import FLOODS, PATH, flood
from tests.bench.connection import request_bytes
from tests.bench.overload_load import Answers, OpenLoop, Phase
from tests.processes import running
from tests.soak.abuses import (
    cancel_calls,
    hang_up,
    hold_idle_connections,
    leave_large_answers_unread,
    open_silent_streams,
    repeat,
    send_bytes,
    withhold_bodies,
)
from tests.system.served import Served, served

PER_S = 40.0
BEFORE_S, FAULT_S = 2.0, 6.0
FROZEN_S = 5.0

Fault = Callable[[Served], Awaitable[None]]


def send(module: str, what: signal.Signals) -> Fault:
    async def fault(at: Served) -> None:
        os.kill(max(running(at.pid, module)), what)

    return fault


def freeze(module: str) -> Fault:
    async def fault(at: Served) -> None:
        pid = max(running(at.pid, module))
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(FROZEN_S)
        os.kill(pid, signal.SIGCONT)

    return fault


def abuse(way: Callable[[int, str], Awaitable[None]]) -> Fault:
    async def fault(at: Served) -> None:
        port = int(at.url.rpartition(":")[2])
        # In a thread, so that the honest callers are not held up.
        await asyncio.to_thread(asyncio.run, during(repeat(way, port, at.grpc)))

    return fault


async def during(work: Awaitable[None]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(FAULT_S - 1):
            await work


async def flood_frames(at: Served) -> None:
    port, each_s = int(at.url.rpartition(":")[2]), (FAULT_S - 1) / len(FLOODS)

    def flood_all() -> None:
        for send_frames in FLOODS.values():
            flood(port, send_frames, time.monotonic() + each_s)

    attackers = [threading.Thread(target=flood_all) for _ in range(2)]
    for attacker in attackers:
        attacker.start()
    for attacker in attackers:
        await asyncio.to_thread(attacker.join)


FAULTS: Mapping[str, Fault] = {
    "an engine is killed": send("engine_svc", signal.SIGKILL),
    "an engine is stopped": send("engine_svc", signal.SIGTERM),
    "an engine is frozen for 5 s": freeze("engine_svc"),
    "the only tokenizer is killed": send("tokenizer_svc", signal.SIGKILL),
    "the only tokenizer is stopped": send("tokenizer_svc", signal.SIGTERM),
    "the only tokenizer is frozen for 5 s": freeze("tokenizer_svc"),
    "the only gateway is killed": send("http_gateway", signal.SIGKILL),
    "the only gateway is stopped": send("http_gateway", signal.SIGTERM),
    "3,000 idle connections": abuse(hold_idle_connections),
    "500 bodies that never come": abuse(withhold_bodies),
    "bodies that are not JSON": abuse(send_bytes),
    "callers that hang up": abuse(hang_up),
    "callers that do not read large answers": abuse(leave_large_answers_unread),
    "20 gRPC calls at a time, of 50 texts each, cancelled": abuse(cancel_calls),
    "50 silent gRPC streams": abuse(open_silent_streams),
    "floods of frames of six kinds": flood_frames,
}


async def try_fault(at: Served, fault: Fault) -> Answers:
    honest = OpenLoop(int(at.url.rpartition(":")[2]), [request_bytes(PATH, '{"input": "warp and weft"}')])

    async def later() -> None:
        await asyncio.sleep(BEFORE_S)
        await fault(at)

    (answers,), _ = await asyncio.gather(honest.run([Phase(BEFORE_S + FAULT_S, PER_S)]), later())
    return answers


def row(name: str, answers: Answers) -> str:
    refused = sum(bool(answer.retry_after_ms) for answer in answers.refused)
    failed = len(answers.answers) - len(answers.good) - refused
    slowest = max(answer.seconds for answer in answers.good)
    return f"| {name} | {len(answers.answers)} | {failed} | {refused} | {slowest:.2f} s |"


async def main() -> None:
    print("| fault | requests | failed | 429 | slowest |\n|---|---|---|---|---|", flush=True)
    async with served("--engine", "simulated", "--engines", "2", "--log-level", "error") as at:
        for name, fault in FAULTS.items():
            print(row(name, await try_fault(at, fault)), flush=True)
            await asyncio.sleep(1)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
