"""Runs the steps of `tests.gpu` in order, each in a process of its own, so that a CUDA error or a hang affects only
that step. A step ends at its own limit or at the end of the whole budget, whichever comes first.

Processes are forked after torch has been imported and before anything has used CUDA, so each starts at once.
"""

import ctypes
import faulthandler
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from tests.gpu.record import Record, SkippedError, Status, write_whole

# A step that has less time than this is not started.
SECONDS_MIN = 3.0
# The limits of the steps are for a GPU. A dry run may share two slow cores with others.
DRY_LIMIT_FACTOR = 3
# A step that is over its limit has this long to end by itself before its process is killed.
GRACE_S = 3.0
POLL_S = 0.2

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

# Loaded before the forks: dlopen in a forked process could wait for a lock that no thread there will release.
LIBC = ctypes.CDLL(None)

context = multiprocessing.get_context("fork")


class WarningRecorder(logging.Handler):
    """Keeps the engine's warnings in the record, for instance that a model cannot be captured as CUDA graphs."""

    def __init__(self, record: Record) -> None:
        super().__init__(logging.WARNING)
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        self._record.note(f"{record.name}: {record.getMessage()}")


@dataclass(frozen=True)
class Settings:
    is_dry: bool = False  # on the CPU, with tiny shapes
    checkpoints: Path | None = None  # that were stored for the step `correctness`


@dataclass(frozen=True)
class Task:
    """The arguments of a step."""

    record: Record
    settings: Settings

    @property
    def is_dry(self) -> bool:
        return self.settings.is_dry

    @property
    def device(self) -> str:
        return "cpu" if self.is_dry else "cuda"

    def attempt(self, name: str, work: Callable[[], None]) -> None:
        """Runs a part of the step. If it raises (out of memory with one model, say) that is recorded as a failure, and
        the step continues."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it raises is what was found
            self.record.fail(f"{name}: {type(error).__name__}: {error}")
            self.record.note(traceback.format_exc())


@dataclass(frozen=True)
class Step:
    name: str
    seconds: float  # its own limit on a GPU
    about: str
    run: Callable[[Task], None]
    is_vital: bool = False  # if it fails, no later step is run


@dataclass(frozen=True)
class Outcome:
    name: str
    status: Status
    seconds: float

    @property
    def is_bad(self) -> bool:
        return self.status not in (Status.OK, Status.SKIPPED)


stopping = threading.Event()


def request_stop(number: int, frame: FrameType | None) -> None:
    """Signal handler: ends the running step, and no further step starts."""
    stopping.set()


def run_all(steps: Sequence[Step], folder: Path, budget_s: float, settings: Settings) -> list[Outcome]:
    """Runs the steps in order, within the budget, and returns how each ended."""
    end = time.monotonic() + budget_s
    outcomes: list[Outcome] = []
    failed_vital = ""
    factor = DRY_LIMIT_FACTOR if settings.is_dry else 1
    for step in steps:
        left = end - time.monotonic() - GRACE_S
        if failed_vital or stopping.is_set() or left < SECONDS_MIN:
            reason = f"{failed_vital} failed" if failed_vital else "stopped" if stopping.is_set() else "no time left"
            outcomes.append(Outcome(step.name, close_step(folder, step.name, Status.NOT_RUN, reason), 0.0))
            continue
        limit = min(step.seconds * factor, left)
        print(f"\n{step.name}: {step.about} (up to {limit:.0f} s)", flush=True)
        outcome = run_one(step, folder, limit, settings)
        outcomes.append(outcome)
        print(f"  {outcome.status} after {outcome.seconds:.1f} s", flush=True)
        if step.is_vital and outcome.is_bad:
            failed_vital = step.name
    return outcomes


def run_one(step: Step, folder: Path, limit: float, settings: Settings) -> Outcome:
    started = time.monotonic()
    process = context.Process(target=run_in_child, args=(step, folder, limit, settings))
    process.start()
    while process.is_alive() and not stopping.is_set() and time.monotonic() < started + limit + GRACE_S:
        process.join(POLL_S)
    is_late = process.is_alive() or process.exitcode == -signal.SIGALRM
    process.kill()
    end_group(process.pid)
    process.join()
    seconds = time.monotonic() - started
    if is_late:
        reason = "stopped by a signal" if stopping.is_set() else f"took longer than its {limit:.0f} s"
        return Outcome(step.name, close_step(folder, step.name, Status.CUT_OFF, reason), seconds)
    status = read_status(folder, step.name)
    if status is Status.RUNNING:
        reason = f"its process ended with exit code {process.exitcode}"
        status = close_step(folder, step.name, Status.CRASHED, reason)
    return Outcome(step.name, status, seconds)


def run_in_child(step: Step, folder: Path, limit: float, settings: Settings) -> None:
    os.setsid()  # so that it can be killed together with all that it starts
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # ends with the parent
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if settings.is_dry:
        torch.set_num_threads(1)  # more threads make tiny shapes slower
    # At the limit SIGALRM prints the stack, to show where the time went; then its default action ends the process.
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.setitimer(signal.ITIMER_REAL, limit)
    record = Record(folder, step.name, time.monotonic() + limit)
    record.write()
    logging.getLogger().addHandler(WarningRecorder(record))
    try:
        step.run(Task(record, settings))
    except SkippedError as reason:
        record.note(f"skipped: {reason}")
        record.write(Status.SKIPPED)
        return
    except Exception as error:  # noqa: BLE001 - whatever a step raises is what it found
        record.fail(f"{type(error).__name__}: {error}")
        record.note(traceback.format_exc())
    record.write(Status.FAILED if record.failures else Status.OK)
    sys.stdout.flush()


def end_group(pid: int | None) -> None:
    """Kills the process of a step and everything that it started."""
    if pid is not None:
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def read_status(folder: Path, step: str) -> Status:
    path = folder / f"{step}.json"
    return Status(json.loads(path.read_text())["status"]) if path.exists() else Status.RUNNING


def close_step(folder: Path, step: str, status: Status, reason: str) -> Status:
    """Writes the final status of a step that could not do so itself. Its rows so far are kept."""
    path = folder / f"{step}.json"
    content = json.loads(path.read_text()) if path.exists() else {"step": step, "failures": [], "notes": [], "rows": []}
    write_whole(path, {**content, "status": status, "failures": [*content["failures"], reason]})
    print(f"  {step} {status}: {reason}", flush=True)
    return status
