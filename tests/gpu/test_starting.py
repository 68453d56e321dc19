"""What is recorded while a model starts, and how graphs are switched off."""

from typing import Any

import pytest
import torch

from engine_svc.backends import torch_backend
from engine_svc.models import attention
from engine_svc.models.attention import attend_by_group
from engine_svc.models.attention_pattern import AttentionPattern
from tests.gpu.attention_kernels import OURS, find_kernels, kernel_name, record_choices
from tests.gpu.random_weights import load_random_backend
from tests.gpu.shapes import shapes
from tests.gpu.starting import count_compilations, count_graphs, without_capture, without_graphs

CPU = torch.device("cpu")


def test_graphs_are_off_only_inside_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = load_random_backend(shapes(is_dry=True)[2], "cpu")
    graphs: Any = ["a graph"]
    monkeypatch.setattr(backend._graphs, "_graphs", graphs)
    assert count_graphs(backend) == 1
    with without_graphs(backend):
        assert count_graphs(backend) == 0
    assert count_graphs(backend) == 1


def test_nothing_is_captured_inside_the_block() -> None:
    capture: Any = torch_backend
    with without_capture():
        assert len(capture.capture_graphs("anything")) == 0


def test_compilations_found_on_disk_are_not_counted() -> None:
    class Taken:
        total = 250_000

    with count_compilations() as compilations:
        from triton import knobs

        listener: Any = knobs.compilation.listener
        for is_found in (False, True, False):
            listener(src=None, metadata={}, metadata_group={}, times=Taken(), cache_hit=is_found)
    assert (compilations.count, compilations.seconds) == (2, 0.5)
    assert knobs.compilation.listener is None


def test_the_kernel_that_a_case_gets_is_named() -> None:
    names: set[str] = set()
    with record_choices(names):
        attention.choose_kernel(CPU, torch.float32, 64, True, False)
    assert names == {kernel_name(attend_by_group)} == set(find_kernels(CPU, torch.float32, 64, AttentionPattern()))
    assert OURS not in names
