"""An event loop in virtual time, and simulated processes on it that can freeze and die.

Time stands still while code runs. When nothing is ready, the loop jumps to its next timer, so that a minute of waiting
costs nothing and a run depends on its seed alone. `virtual_time` replaces what the code under test knows of time,
threads and randomness; the code itself is the one that is shipped.
"""

import asyncio
import functools
import gc
import heapq
import itertools
import math
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

import engine_svc.worker
import heddle.rpc.fairness
import heddle.rpc.lifecycle
from tests.simulation.threads import Baton

T = TypeVar("T")

START_S = 1000.0  # time.monotonic is never 0
# Callbacks without a step of time: beyond these a run makes no progress.
TURNS_MAX = 100_000

PROCESS: ContextVar["Process"] = ContextVar("process")


class HangError(Exception):
    """Nothing will ever happen again, or too much without an end."""


class Process:
    """An operating system's process, as far as others see it. Its callbacks wait while it is frozen or dead."""

    def __init__(self, loop: "VirtualLoop", name: str) -> None:
        self.name = name
        self.alive = True
        self.on_exit: list[Callable[[], None]] = []
        self.context = copy_context()
        self.context.run(PROCESS.set, self)
        self.stopped = False
        self.held: list[asyncio.Handle] = []
        self._loop = loop
        loop.processes.append(self)

    def start(self, main: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task: asyncio.Task[T] = self._loop.create_task(main, context=self.context.copy())
        return task

    def thaw(self) -> None:
        if self.alive:
            self.resume()

    def exit(self) -> None:
        """As after SIGKILL: not one more line of its code runs."""
        if self.alive:
            self.alive, self.stopped = False, True
            for callback in self.on_exit:
                callback()

    def resume(self) -> None:
        self.stopped = False
        held, self.held = self.held, []
        self._loop.continue_with(held)


class Handle(asyncio.Handle):
    """A callback that waits while its process is stopped."""

    __slots__ = ()

    def _run(self) -> None:
        run(self, super()._run)


class TimerHandle(asyncio.TimerHandle):
    __slots__ = ()

    def _run(self) -> None:
        run(self, super()._run)


def run(handle: Any, call: Callable[[], None]) -> None:
    process = handle._context.get(PROCESS)
    if process is not None and process.stopped:
        process.held.append(handle)
    else:
        call()


class VirtualLoop(asyncio.BaseEventLoop):
    """Jumps from timer to timer. `look_up` stands for the resolver of names."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, encode_s: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__()
        self.deadline = math.inf
        self.look_up: Callable[[str], list[str]] = lambda name: [name]
        self._encode_s = encode_s
        self.processes: list[Process] = []
        self._now = START_S
        self._turns = 0
        self._selector = self

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Called by the loop where another would wait for sockets."""
        if timeout is None:
            raise HangError("nothing is left that could ever happen")
        if timeout > 0:
            self._now += timeout
            self._turns = 0
        self._turns += 1
        if self._turns > TURNS_MAX or self._now > self.deadline:
            raise HangError(f"still busy after {self._now - START_S:.1f} s")
        return []

    def continue_with(self, handles: list[asyncio.Handle]) -> None:
        self._ready.extend(handles)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self._call_soon(callback, args, context)

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None) -> Any:
        if context is not None and PROCESS not in context:  # a context without anything is still in this process
            context.run(PROCESS.set, PROCESS.get())
        return super().create_task(coro, name=name, context=context)

    def run_in_executor(self, executor: Executor | None, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Takes the time that a thread would take."""
        done: asyncio.Future[Any] = self.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(func(*args))

        self.call_later(self._encode_s(), finish)
        return done

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return [(0, 0, 0, "", (address, port)) for address in self.look_up(host)]

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        timer = TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> Any:
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _process_events(self, event_list: list[Any]) -> None:
        pass


@contextmanager
def virtual_time(seed: int, encode_s: Callable[[], float] = lambda: 0.0) -> Iterator[VirtualLoop]:
    """Within it, time, threads and random numbers are those of the loop that is yielded, in the whole process."""
    loop = VirtualLoop(encode_s)
    baton = Baton(loop)
    numbers = random.Random(f"names {seed}")
    stand_ins = {
        (time, "monotonic"): loop.time,
        (time, "perf_counter"): loop.time,
        (time, "sleep"): baton.sleep,
        (threading, "Thread"): baton.thread,
        (threading, "Condition"): baton.condition,
        (secrets, "token_hex"): lambda count: numbers.randbytes(count).hex(),
        (heddle.rpc.fairness, "_numbers"): itertools.count(),
        # These are about the real process: its memory, its sockets and its threads.
        (heddle.rpc.lifecycle, "tune_garbage_collector"): lambda: None,
        (heddle.rpc.lifecycle, "check_address"): lambda address: None,
        (engine_svc.worker, "lower_thread_priority"): lambda: None,
    }
    originals = {place: getattr(*place) for place in stand_ins}
    state = random.getstate()
    random.seed(seed)
    # An object that is collected earlier or later would make a run differ from the next.
    gc.disable()
    keep_what_is_loaded()
    gc.collect()
    for (module, name), stand_in in stand_ins.items():
        setattr(module, name, stand_in)
    try:
        yield loop
    finally:
        end(loop, baton)
        for (module, name), original in originals.items():
            setattr(module, name, original)
        random.setstate(state)
        gc.enable()


@functools.cache
def keep_what_is_loaded() -> None:
    """The garbage collector need not look at it again for each run."""
    gc.freeze()


def end(loop: VirtualLoop, baton: Baton) -> None:
    """Ends all tasks and threads, also those of processes that died."""
    loop.deadline = math.inf
    for process in loop.processes:
        process.resume()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))
    baton.end_all()
    loop.close()
