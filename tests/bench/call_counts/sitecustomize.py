"""Counts Python calls and C calls in the process that imports it. `tests.bench.bench_inputs` uses it.

Python imports a module of this name at its start if its folder is on PYTHONPATH, so every process of `heddle serve`
counts. A client of the socket `$BENCH_CALL_COUNTS/<process id>` gets the counts so far, as JSON. Threads that Python
did not start, such as granian's, are not counted.
"""

import json
import os
import socket
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any


class ThreadCounts:
    """The counts of one thread, which alone writes them. A coroutine counts each time it continues."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()  # Python functions, by file and name
        self.c_calls = 0

    def on_event(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            code = frame.f_code
            self.calls[f"{code.co_filename}:{code.co_name}"] += 1
        elif event == "c_call":
            self.c_calls += 1


threads: list[ThreadCounts] = []


def count_this_thread(*_: Any) -> None:
    """Called on the first event of a new thread, too."""
    counts = ThreadCounts()
    threads.append(counts)
    sys.setprofile(counts.on_event)


def serve_counts(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            calls: Counter[str] = Counter()
            for thread in [*threads]:
                calls.update(dict(thread.calls))
            counts = {"calls": calls, "c_calls": sum(thread.c_calls for thread in threads)}
            connection.sendall(json.dumps(counts).encode())


def start(folder: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / str(os.getpid())))
    listener.listen()
    threading.Thread(target=serve_counts, args=(listener,), daemon=True).start()
    threading.setprofile(count_this_thread)
    count_this_thread()


if "BENCH_CALL_COUNTS" in os.environ:
    start(Path(os.environ["BENCH_CALL_COUNTS"]))
