"""Threads that take turns: the event loop's runs until it resumes another, and waits until that one waits or ends.

So the worker of an engine is the real one, with its threads, and yet one thing happens at a time, in an order that the
event loop decides. `Baton.thread`, `Baton.condition` and `Baton.sleep` stand in for threading.Thread,
threading.Condition and time.sleep.
"""

import _thread
import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any


class EndedError(BaseException):
    """Raised where a thread waits, when the simulation is over."""


class Baton:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.loops_turn = taken_lock()
        self.running: Any = None  # the thread whose turn it is; None: the event loop's
        self.threads: list[Thread] = []
        self.thread = partial(Thread, self)
        self.condition = partial(Condition, self)

    def sleep(self, seconds: float) -> None:
        self.running.sleep(seconds)

    def end_all(self) -> None:
        for thread in self.threads:
            if thread.alive:
                thread.ending = True
                thread.resume(thread.waits)


class Thread:
    def __init__(self, baton: Baton, target: Callable[..., None], args: Any = (), **_: Any) -> None:
        self.alive = False
        self.ending = False
        self.waits = 0  # how often it has waited
        self._baton = baton
        self._run = partial(copy_context().run, target, *args)  # with the process that it belongs to
        self._context = copy_context()
        self._turn = taken_lock()
        self._joining: list[Thread] = []

    def start(self) -> None:
        self.alive = True
        self._baton.threads.append(self)
        _thread.start_new_thread(self._main, ())
        self.resume_soon()

    def join(self) -> None:
        waiting = self._baton.running
        if self.alive and not waiting.ending:
            self._joining.append(waiting)
            waiting.wait()

    def sleep(self, seconds: float) -> None:
        self._baton.loop.call_later(seconds, self.resume, self.waits, context=self._context)
        self.wait()

    def wait(self) -> None:
        """Until it is resumed. Called on the thread itself."""
        self._hand_over()
        self._turn.acquire()
        if self.ending:
            raise EndedError

    def resume_soon(self) -> None:
        self._baton.loop.call_soon(self.resume, self.waits, context=self._context)

    def resume(self, wait: int) -> None:
        """Called on the event loop, which waits. No effect if what the thread waited for has come already."""
        if wait == self.waits:
            self.waits += 1
            self._baton.running = self
            self._turn.release()
            self._baton.loops_turn.acquire()

    def _main(self) -> None:
        self._turn.acquire()
        try:
            if not self.ending:
                self._run()
        except EndedError:
            pass
        finally:
            self.alive = False
            for thread in self._joining:
                thread.resume_soon()
            self._hand_over()

    def _hand_over(self) -> None:
        self._baton.running = None
        self._baton.loops_turn.release()


class Condition:
    def __init__(self, baton: Baton, lock: Any = None) -> None:
        self._baton = baton
        self._lock: Any = lock or _thread.RLock()
        self._waiting: list[Thread] = []

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: None = None) -> bool:
        thread = self._baton.running
        self._waiting.append(thread)
        self._lock.release()
        try:
            thread.wait()
        finally:
            self._lock.acquire()
        return True

    def wait_for(self, predicate: Callable[[], bool], timeout: None = None) -> None:
        while not predicate():
            self.wait()

    def notify(self, n: int = 1) -> None:
        woken, self._waiting = self._waiting[:n], self._waiting[n:]
        for thread in woken:
            thread.resume_soon()

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


def taken_lock() -> Any:
    lock = _thread.allocate_lock()
    lock.acquire()
    return lock
