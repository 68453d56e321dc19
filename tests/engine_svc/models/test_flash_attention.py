"""Calls of the flash kernels of other packages, against the signatures of their published versions.

flash-attn 2: flash_attn/flash_attn_interface.py of Dao-AILab/flash-attention at 2.8; 3: hopper/flash_attn_interface.py
there. The fakes refuse arguments that these do not have, and what the kernels behind them refuse.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from engine_svc.models import attention, flash_attention
from engine_svc.models.attention import attend_by_group, choose_kernel
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.flash_attention import find_flash_attn_2, find_flash_attn_3, find_torch_varlen
from engine_svc.models.layout import Layout

Kernel = Callable[..., Any]
Window = tuple[int, int]

CUDA = torch.device("cuda", 0)
LENGTHS = (4, 1, 20)
PATTERN = AttentionPattern(window_left=40, window_right=0, scale=0.25)
EXPECTED = {"max_q": 32, "max_k": 42, "window": (40, 0), "scale": 0.25}


def check(cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, *, window: Window, scale: float | None) -> None:
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert cu_q.tolist() == cu_k.tolist() == [0, *itertools.accumulate(LENGTHS)]
    assert {"max_q": max_q, "max_k": max_k, "window": window, "scale": scale} == EXPECTED


def flash_attn_2_of_2_8(  # noqa: PLR0917 - flash-attn's
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Tensor:
    check(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, window=window_size, scale=softmax_scale)
    assert causal
    return q + softcap


def flash_attn_3_of_3_0(  # noqa: PLR0917 - flash-attn's
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    qv: Tensor | None = None,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    window_size: Window = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
) -> Tensor:
    check(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, window=window_size, scale=softmax_scale)
    assert num_splits == 1
    return q + softcap


def flash_attn_3_with_sums(*arguments: Any, num_splits: int, softcap: float, **options: Any) -> tuple[Tensor, Tensor]:
    """Its first versions always returned the sums of the softmax too."""
    kernel: Kernel = flash_attn_3_of_3_0
    return kernel(*arguments, num_splits=num_splits, softcap=softcap, **options), torch.zeros(1)


def varlen_of_torch_2_10(  # noqa: PLR0917 - torch's
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    return_aux: object = None,
) -> Tensor:
    return query


def varlen_of_torch_2_11(  # noqa: PLR0917 - torch's
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: object = None,
    scale: float | None = None,
    window_size: Window = (-1, -1),
) -> Tensor:
    check(cu_seq_q, cu_seq_k, max_q, max_k, window=window_size, scale=scale)
    return query


def varlen_of_torch_2_13(  # noqa: PLR0917 - torch's
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: object = None,
    scale: float | None = None,
    window_size: Window = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: Tensor | None = None,
    block_table: Tensor | None = None,
    num_splits: int | None = None,
) -> Tensor:
    assert cu_seq_k is not None
    check(cu_seq_q, cu_seq_k, max_q, max_k, window=window_size, scale=scale)
    assert enable_gqa
    assert num_splits == 1
    return query


def offer(monkeypatch: pytest.MonkeyPatch, kernels: dict[str, Kernel | None]) -> None:
    """Only these are installed."""
    installed = {"flash_attn_interface": None, "flash_attn": None, "torch.nn.attention.varlen": None} | kernels
    monkeypatch.setattr("importlib.util.find_spec", lambda module: installed.get(module) and object())
    for name, kernel in installed.items():
        module = ModuleType(name)
        module.__dict__.update(dict.fromkeys(("flash_attn_varlen_func", "varlen_attn"), kernel))
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(autouse=True)
def _nothing_was_chosen() -> Iterator[None]:
    choose_kernel.cache_clear()
    yield
    choose_kernel.cache_clear()


def make_arguments(pattern: AttentionPattern) -> tuple[Tensor, Tensor, Tensor, Layout, AttentionPattern]:
    query, key, value = torch.randn(sum(LENGTHS), 3, 4, 8).unbind(1)
    cu_seqlens = torch.tensor([0, *itertools.accumulate(LENGTHS)], dtype=torch.int32)
    return query, key[:, :2], value[:, :2], Layout.of(LENGTHS, cu_seqlens), pattern


@pytest.mark.parametrize("kernel", [flash_attn_3_of_3_0, flash_attn_3_with_sums])
def test_flash_attn_3_is_called_as_published(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, {"flash_attn_interface": kernel})
    attends = find_flash_attn_3()
    assert attends is not None
    arguments = make_arguments(PATTERN)
    assert torch.equal(attends(*arguments), arguments[0])


def test_flash_attn_2_is_called_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, {"flash_attn": flash_attn_2_of_2_8})
    attends = find_flash_attn_2()
    assert attends is not None
    arguments = make_arguments(AttentionPattern(window_left=40, window_right=0, scale=0.25, softcap=3.0))
    assert torch.equal(attends(*arguments), arguments[0] + 3.0)


@pytest.mark.parametrize("kernel", [varlen_of_torch_2_11, varlen_of_torch_2_13])
def test_varlen_is_called_as_its_version_takes_it(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, {"torch.nn.attention.varlen": kernel})
    attends = find_torch_varlen()
    assert attends is not None
    arguments = make_arguments(PATTERN)
    assert attends(*arguments) is arguments[0]


def test_varlen_without_windows_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, {"torch.nn.attention.varlen": varlen_of_torch_2_10})
    assert find_torch_varlen() is None


def test_package_that_cannot_be_loaded_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Built for another version of PyTorch, as often happens."""

    def import_module(name: str) -> ModuleType:
        raise ImportError(f"undefined symbol in {name}")

    offer(monkeypatch, {"flash_attn": flash_attn_2_of_2_8})
    monkeypatch.setattr("importlib.import_module", import_module)
    assert find_flash_attn_2() is None
    assert "undefined symbol" in caplog.text


ALL = {
    "flash_attn_interface": flash_attn_3_of_3_0,
    "flash_attn": flash_attn_2_of_2_8,
    "torch.nn.attention.varlen": varlen_of_torch_2_13,
}
TORCH = {"torch.nn.attention.varlen": varlen_of_torch_2_13}

BFLOAT16, FLOAT16, FLOAT32 = torch.bfloat16, torch.float16, torch.float32


@pytest.mark.parametrize(
    ("offered", "capability", "need", "expected"),
    [
        (ALL, (9, 0), (BFLOAT16, 128, False, False), flash_attn_3_of_3_0),
        (ALL, (9, 0), (BFLOAT16, 256, False, True), flash_attn_3_of_3_0),
        (ALL, (8, 9), (FLOAT16, 64, False, True), flash_attn_2_of_2_8),
        (ALL, (10, 0), (FLOAT16, 64, False, False), flash_attn_2_of_2_8),
        (ALL, (9, 0), (BFLOAT16, 64, True, False), "ours"),
        (ALL, (9, 0), (FLOAT32, 64, False, False), "ours"),
        (ALL, (9, 0), (BFLOAT16, 36, False, False), "ours"),
        (ALL, (7, 5), (FLOAT16, 64, False, False), "ours"),
        (TORCH, (9, 0), (BFLOAT16, 128, False, False), varlen_of_torch_2_13),
        (TORCH, (9, 0), (BFLOAT16, 256, False, True), "ours"),
        ({}, (9, 0), (BFLOAT16, 128, False, False), "ours"),
    ],
)
def test_the_best_kernel_that_can_do_it_is_chosen(
    offered: dict[str, Kernel | None],
    capability: tuple[int, int],
    need: Sequence[Any],
    expected: Kernel | str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(monkeypatch, offered)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(attention, "find_own_kernel", lambda _: "ours")
    attends = choose_kernel(CUDA, *need)
    assert getattr(attends, "kernel", attends) == expected


def test_attention_by_group_is_the_last_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, {})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(attention, "runs_kernels", lambda _: False)
    assert choose_kernel(CUDA, BFLOAT16, 64, False, False) is attend_by_group


def test_the_maximum_length_passed_to_a_kernel_exceeds_the_window() -> None:
    """Otherwise kernels drop the window and round differently: the result for a sequence would depend on the batch."""
    *_, layout, _ = make_arguments(PATTERN)
    assert flash_attention.seqlens(layout, AttentionPattern(window_left=500, window_right=0))[-1] > 501
    assert flash_attention.seqlens(layout, AttentionPattern())[-1] == layout.max_seqlen_k
