"""Loading on several cores keeps the order of layers, raises the error of the first bad layer, and restores the number
of threads."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from engine_svc.models.loading_threads import load_on_all_cores


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_parts_are_in_the_order_of_the_items() -> None:
    both = threading.Barrier(2)

    def load(item: int) -> int:
        both.wait(10)  # needs two threads at the same time
        return 10 * item

    assert load_on_all_cores(load, range(6)) == [0, 10, 20, 30, 40, 50]


def test_the_first_error_in_order_is_raised() -> None:
    def load(item: int) -> int:
        if item >= 2:
            raise ValueError(f"layer {item}")
        return item

    with pytest.raises(ValueError, match="layer 2"):
        load_on_all_cores(load, range(5))


def test_threads_that_start_later_compute_on_all_cores() -> None:
    load_on_all_cores(lambda item: item, range(4))
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(torch.get_num_threads).result() == 2
