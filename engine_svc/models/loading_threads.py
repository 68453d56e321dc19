"""Loads the layers of a model on several cores. Architectures call it through `Weights.load_each`.

Loading a layer copies weights from the file and packs them for oneDNN. Many of these steps are too small for two cores,
so one layer per core is faster than all cores on one layer.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Part = TypeVar("Part")

# Memory bandwidth makes more threads useless.
THREADS_MAX = 8


def load_on_all_cores(load: Callable[[Item], Part], items: Iterable[Item]) -> list[Part]:
    """Returns what `load` returns for each item, in order. Raises the error of the first item that failed."""
    cores = torch.get_num_threads()
    if cores < 2:
        return [load(item) for item in items]
    try:
        with ThreadPoolExecutor(
            min(cores, THREADS_MAX), "loader", initializer=lambda: torch.set_num_threads(1)
        ) as executor:
            return list(executor.map(load, items))
    finally:
        torch.set_num_threads(cores)  # new threads inherit the number that any thread set last
