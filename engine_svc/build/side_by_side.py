"""Distributes work over cores and GPUs. Calibration, the weights writer and the comparison call this."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Part = TypeVar("Part")


def run_side_by_side(workers: Sequence[Callable[[Part], object]], parts: Iterable[Part]) -> None:
    """Runs each worker in its own thread on one core; a free worker takes the next part. After an error or Ctrl-C,
    which this raises, no worker takes another part. All threads have ended when this returns."""
    remaining, stopped = deque(parts), threading.Event()

    def run(worker: Callable[[Part], object]) -> None:
        torch.set_num_threads(1)  # for this thread
        while not stopped.is_set():
            try:
                part = remaining.popleft()
            except IndexError:
                return
            worker(part)

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(workers), "build") as pool:
            try:
                futures = [pool.submit(run, worker) for worker in workers]
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            finally:
                stopped.set()
    finally:
        torch.set_num_threads(threads)  # a worker may have set it for the whole process
