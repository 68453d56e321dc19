"""Kernels against the plain operations that they stand for, on random inputs of the sizes that models have. Part of the
correctness step of `tests.gpu`."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine_svc.models.attention import Layout, attend_by_flash, attend_by_runs, uses_flash
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.prefixes import Merging
from tests.gpu import offered
from tests.gpu.running import Task

ERROR_MAX = 1e-2  # relative, in 16 bit

# Query heads, key heads and head_dim of MiniLM, bge-large, Qwen3-Embedding-8B and Gemma.
HEADS = ((12, 12, 32), (16, 16, 64), (32, 8, 128), (8, 4, 256))
LENGTHS = (1, 2, 5, 5, 17, 64, 64, 500, 1025)
LENGTHS_DRY = (1, 2, 5, 5, 17)
PATTERNS = {
    "all": AttentionPattern(),
    "causal": AttentionPattern(ahead=0),
    "window": AttentionPattern(behind=64, ahead=64),
    "causal window, scaled": AttentionPattern(behind=100, ahead=0, scale=0.1),
}


def run(task: Task) -> None:
    check_flash(task)
    kernels = offered.kernels(task.device)
    if not kernels:
        task.record.add(check="kernels against their plain versions", result=offered.NOT_BUILT)
    for name, kernel in kernels.items():
        for dtype in (torch.bfloat16, torch.float16):
            arguments = kernel.example(torch.device(task.device), dtype)
            check(task, f"{name}, {dtype}", kernel.fused(*arguments), kernel.plain(*arguments))


@torch.inference_mode()
def check_flash(task: Task) -> None:
    device = torch.device(task.device)
    lengths = LENGTHS_DRY if task.is_dry else LENGTHS
    for (heads, key_heads, head_dim), (name, pattern) in itertools.product(HEADS, PATTERNS.items()):
        for dtype in (torch.bfloat16, torch.float16):
            query, key, value = (
                torch.randn(sum(lengths), count, head_dim, device=device).to(dtype)
                for count in (heads, key_heads, key_heads)
            )
            if not uses_flash(query, pattern):
                task.record.add(check="flash attention against runs", result="not on this device")
                return
            layout = layout_of(lengths, device)
            described = f"flash attention, {heads} heads of {head_dim}, {name}, {dtype}"
            flash = attend_by_flash(query, key, value, layout, pattern)
            check(task, described, flash, plainly(query, key, value, layout, pattern))
            if pattern.ahead == 0:
                own = merged(layout, lengths)
                rows = torch.from_numpy(rows_of_own(lengths)).to(device)
                flash = attend_by_flash(query[rows], key, value, own, pattern)
                check(task, f"{described}, last tokens", flash, plainly(query[rows], key, value, own, pattern))


def check(task: Task, name: str, ours: Tensor, theirs: Tensor) -> None:
    error = float((ours.double() - theirs.double()).norm() / theirs.double().norm())
    task.record.add(shown=False, check=name, error=error)
    if not error <= ERROR_MAX:  # a NaN is not
        task.record.fail(f"{name}: {error:.1e} from its plain version")


def plainly(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    """The reference: float32 arithmetic on the same 16-bit inputs."""
    return attend_by_runs(query.float(), key.float(), value.float(), layout, pattern)


def layout_of(lengths: Sequence[int], device: torch.device) -> Layout:
    cu_seqlens = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device)
    return Layout.of(lengths, cu_seqlens)


def merged(layout: Layout, lengths: Sequence[int]) -> Layout:
    """The layout when only the last half of each sequence has queries, as with merged prefixes."""
    own = own_tokens(lengths)
    tokens = np.arange(sum(lengths))
    return layout.merged(Merging(tokens, tokens[: int(own.sum())], own))


def own_tokens(lengths: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return (np.array(lengths, np.int32) + 1) // 2


def rows_of_own(lengths: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    stops = np.cumsum(lengths)
    spans = zip(stops - own_tokens(lengths), stops, strict=True)
    return np.concatenate([np.arange(start, stop) for start, stop in spans])
