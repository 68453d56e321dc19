"""Shares the items of a step among processes. Compiling and the reference computation on the CPU then take a
fraction of the time, and an item that ends its process, or breaks CUDA in it, does not affect the others. Steps of
many small items use it. They must not have used CUDA before, because the processes are forked."""

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait

import torch

from tests.gpu.record import Record, Row, Status
from tests.gpu.running import Task, WarningRecorder, context

PROCESSES_MAX = 8
CORES_OF_A_PROCESS = 2

Item = tuple[str, Callable[[Task], None]]
Found = tuple[list[Row], list[str], list[str], bool]  # rows, notes, failures; whether the process can go on


class WorkerRecord(Record):
    """Prints the results of a worker. The process of the step writes them to the file."""

    def write(self, status: Status = Status.RUNNING) -> None: ...


class Worker:
    def __init__(self, task: Task, items: Sequence[Item]) -> None:
        self.pipe, own = context.Pipe()
        self._process = context.Process(target=work_on, args=(own, task, items), daemon=True)
        self._process.start()
        own.close()
        self.item = ""

    def give(self, index: int, name: str) -> None:
        self.item = name
        self.pipe.send(index)

    def end(self) -> int | None:
        """Returns the exit code."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        return self._process.exitcode


def count_processes(task: Task) -> int:
    return 1 if task.is_dry else max(1, min(PROCESSES_MAX, (os.cpu_count() or 1) // CORES_OF_A_PROCESS))


def share(task: Task, items: Sequence[Item], *, seconds_kept: float) -> None:
    """Starts the items in order, but none in the last `seconds_kept` of the step."""
    waiting = deque(enumerate(items))
    busy: dict[Connection, Worker] = {}

    def give_next(worker: Worker) -> None:
        if not waiting or task.record.seconds_left < seconds_kept:
            worker.end()
            return
        index, (name, _) = waiting.popleft()
        worker.give(index, name)
        busy[worker.pipe] = worker

    for _ in range(min(count_processes(task), len(items))):
        give_next(Worker(task, items))
    while busy:
        for pipe in wait(list(busy)):
            assert isinstance(pipe, Connection)
            worker = busy.pop(pipe)
            if not receive(task, worker):
                worker.end()
                worker = Worker(task, items)
            give_next(worker)
    if waiting:
        task.record.note(f"stopped before {waiting[0][1][0]}, one of {len(waiting)}: no time left")


def receive(task: Task, worker: Worker) -> bool:
    """Whether the worker can go on."""
    try:
        found: Found = worker.pipe.recv()
    except (EOFError, ConnectionError):
        task.record.fail(f"{worker.item}: its process ended with exit code {worker.end()}")
        return False
    rows, notes, failures, can_go_on = found
    task.record.keep(rows, notes, failures)
    return can_go_on


def work_on(pipe: Connection, task: Task, items: Sequence[Item]) -> None:
    """The process of a worker: receives the index of an item, and sends the results."""
    folder, deadline = task.record.folder, time.monotonic() + task.record.seconds_left
    root = logging.getLogger()
    while True:
        name, work = items[pipe.recv()]
        own = Task(WorkerRecord(folder, "", deadline), task.settings)
        root.handlers = [WarningRecorder(own.record)]
        own.attempt(name, lambda work=work, own=own: work(own))  # type: ignore[misc]
        found: Found = own.record.rows, own.record.notes, own.record.failures, is_usable(task.device)
        sys.stdout.flush()
        pipe.send(found)


def is_usable(device: str) -> bool:
    """False after an illegal memory access, for example: then all CUDA calls of the process fail."""
    try:
        if device == "cuda":
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
