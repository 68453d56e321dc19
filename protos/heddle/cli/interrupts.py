"""Ends a command soon after a signal, even if threads wait for the network. `serve` and `build_command` call this
around downloads.

Without this, exiting waits for those threads: Python joins those of pools, and download libraries join their own.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from heddle.rpc.process import leave

# Time for the main thread to close files and release locks. The next start resumes partial downloads.
CLEANING_S_MAX = 1.0


@contextmanager
def leave_on_signal() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises SystemExit. If the process still runs after CLEANING_S_MAX, it is ended."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set handlers
        yield
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def on_signal(number: int, frame: FrameType | None) -> None:
    timer = threading.Timer(CLEANING_S_MAX, leave, [128 + number])
    timer.daemon = True
    timer.start()
    sys.exit(128 + number)
