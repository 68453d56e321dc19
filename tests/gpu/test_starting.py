"""What is recorded while a model starts, and how graphs are switched off."""

from typing import Any

import pytest
import torch

from engine_svc.backends import torch_backend
from engine_svc.models import attention
from engine_svc.models.attention import attend_by_group
from engine_svc.models.attention_pattern import AttentionPattern
from tests.gpu.attention_kernels import OURS, kernels_for, name_of, noted_choices
from tests.gpu.drawn import drawn_backend
from tests.gpu.shapes import shapes
from tests.gpu.starting import graphs_of, no_graphs_captured, no_graphs_in, noted_compilations

CPU = torch.device("cpu")


def test_graphs_are_off_only_inside_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = drawn_backend(shapes(is_dry=True)[2], "cpu")
    graphs: Any = ["a graph"]
    monkeypatch.setattr(backend._graphs, "_graphs", graphs)
    assert graphs_of(backend) == 1
    with no_graphs_in(backend):
        assert graphs_of(backend) == 0
    assert graphs_of(backend) == 1


def test_nothing_is_captured_inside_the_block() -> None:
    capture: Any = torch_backend
    with no_graphs_captured():
        assert len(capture.capture_graphs("anything")) == 0


def test_compilations_found_on_disk_are_not_counted() -> None:
    class Taken:
        total = 250_000

    with noted_compilations() as compilations:
        from triton import knobs

        listener: Any = knobs.compilation.listener
        for is_found in (False, True, False):
            listener(src=None, metadata={}, metadata_group={}, times=Taken(), cache_hit=is_found)
    assert (compilations.count, compilations.seconds) == (2, 0.5)
    assert knobs.compilation.listener is None


def test_the_kernel_that_a_case_gets_is_named() -> None:
    names: set[str] = set()
    with noted_choices(names):
        attention.choose_kernel(CPU, torch.float32, 64, True, False)
    assert names == {name_of(attend_by_group)} == set(kernels_for(CPU, torch.float32, 64, AttentionPattern()))
    assert OURS not in names
