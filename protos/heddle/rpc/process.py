"""A service as a process: its exit codes, its signals, and what it asks of the system. Called by each `__main__`.

    def main() -> NoReturn:
        settings = load(EngineSettings, sys.argv[1:], os.environ, prog="engine-svc", env_prefix="HEDDLE_ENGINE_")
        start_logging("engine_svc", log_format=settings.log_format, log_level=settings.log_level)
        run(lambda: serve(settings))

Exit codes: 0 after a signal, 2 for the operator's mistake (ConfigurationError), 1 for anything else. This file imports
no gRPC, so that `heddle serve` can start its services before it does.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from heddle.rpc.settings import EXIT_MISCONFIGURED, ConfigurationError

GC_ALLOCATIONS = 50_000
# GNU `timeout` sends a signal twice: to the process and to its group.
REPEATED_S = 1.0

log = logging.getLogger(__name__)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> NoReturn:
    """Runs `main` on uvloop and ends the process with one of the exit codes above. Garbage is not collected before
    `tune_garbage_collector` is called, because a starting service keeps nearly all objects that it makes."""
    import uvloop

    gc.disable()
    gc.freeze()  # what has been imported
    raise_file_limit()
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        runner.run(main())
    except ConfigurationError as error:
        log.critical("%s", error)
        leave(EXIT_MISCONFIGURED)
    except KeyboardInterrupt:
        leave(128 + signal.SIGINT)
    except Exception:
        log.critical("unexpected error: the process ends", exc_info=True)
        leave(1)
    leave(0)


def leave(code: int) -> NoReturn:
    """Ends the process at once: a thread that is loading weights cannot be stopped, and is not worth waiting for."""
    logging.shutdown()
    if sys.stdout is not None:  # None after >&- in a shell
        sys.stdout.flush()
    os._exit(code)


def raise_file_limit() -> None:
    """A gRPC connection takes three file descriptors, and the usual limit is 1,024."""
    with contextlib.suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def use_batch_scheduling() -> None:
    """Sets Linux's SCHED_BATCH (see sched(7)). Called by gateways and tokenizer pods, before they have threads.

    While a core is free, nothing changes. While none is, such a process does not preempt the engine that computes; it
    waits a few milliseconds and then finds more work to take at once. Beside an engine that filled two cores, it took a
    third less CPU time per request."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def tune_garbage_collector() -> None:
    """Called once, after warm-up. Loaded objects stay, so the garbage collector need not look at them again. Messages
    are many but free of cycles, so it may run less often, which saves an eighth of a loaded pod's CPU time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    gc.enable()


def stop_on_signal(before_leaving: Callable[[], None] = lambda: None) -> asyncio.Event:
    """Returns an event that the first SIGTERM or SIGINT sets. The second ends the process, after `before_leaving`,
    unless it is the same one within REPEATED_S."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    first: tuple[signal.Signals, float] | None = None

    def on_signal(number: signal.Signals) -> None:
        nonlocal first
        if first is not None:
            if number == first[0] and loop.time() - first[1] < REPEATED_S:
                return
            log.warning("%s again: leaving at once", number.name)
            before_leaving()
            leave(128 + number)
        first = number, loop.time()
        log.info("%s: stopping", number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop
