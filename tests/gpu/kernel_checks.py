"""Kernels against the plain operations that they stand for, on random inputs of the sizes that models have. Part of the
correctness step of `tests.gpu`."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from engine_svc.models.alibi import alibi_bias
from engine_svc.models.attention import attend_by_runs, choose_kernel, our_kernel
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.flash_attention import Attend
from engine_svc.models.kernels.available import runs_kernels
from engine_svc.models.layout import Layout
from engine_svc.models.prefixes import Merging
from tests.gpu import offered
from tests.gpu.running import Task

ERROR_MAX = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-2}  # relative

# Query heads, key heads and head_dim of MiniLM, bge-large, Qwen3-Embedding-8B and Gemma.
HEADS = ((12, 12, 32), (16, 16, 64), (32, 8, 128), (8, 4, 256))
LENGTHS = (1, 2, 5, 5, 17, 64, 64, 500, 1025)
LENGTHS_DRY = (1, 2, 5, 5, 17)
PATTERNS = {
    "all": AttentionPattern(),
    "causal": AttentionPattern(ahead=0),
    "window": AttentionPattern(behind=64, ahead=64),
    "causal window, scaled": AttentionPattern(behind=100, ahead=0, scale=0.1),
    "causal, softcap": AttentionPattern(ahead=0, softcap=5.0),
    "ALiBi": AttentionPattern(bias=alibi_bias(16, max(LENGTHS), torch.device("cpu"))),
}
# Triton compiles for a second or two for each head size, pattern and type, so not all of them together.
CASES = [(HEADS[1], name) for name in PATTERNS] + [
    (heads, "causal window, scaled") for heads in HEADS if heads != HEADS[1]
]


def run(task: Task) -> None:
    device = torch.device(task.device)
    for dtype in ERROR_MAX:
        check_attention(task, device, dtype)
    if runs_kernels(device):
        check_disentangled_attention(task, device)
    kernels = offered.kernels(task.device)
    if not kernels:
        task.record.add(check="kernels against their plain versions", result=offered.NOT_BUILT)
    for name, kernel in kernels.items():
        for dtype in (torch.bfloat16, torch.float16):
            arguments = kernel.example(device, dtype)
            check(task, f"{name}, {dtype}", dtype, kernel.fused(*arguments), kernel.plain(*arguments))


@torch.inference_mode()
def check_attention(task: Task, device: torch.device, dtype: torch.dtype) -> None:
    lengths = LENGTHS_DRY if task.is_dry else LENGTHS
    layout = layout_of(lengths, device)
    for (heads, key_heads, head_dim), name in CASES:
        pattern = on_device(PATTERNS[name], device)
        query, key, value = (
            torch.randn(sum(lengths), count, head_dim, device=device).to(dtype)
            for count in (heads, key_heads, key_heads)
        )
        for kernel, attends in attention_kernels(device, dtype, head_dim, pattern).items():
            described = f"{kernel}, {heads} heads of {head_dim}, {name}, {dtype}"
            attended = attends(query, key, value, layout, pattern)
            check(task, described, dtype, attended, plainly(query, key, value, layout, pattern))
            check_alone(task, described, attends, (query, key, value), attended, pattern=pattern)
            if pattern.ahead == 0:
                own, rows = merged(layout, lengths), torch.from_numpy(rows_of_own(lengths)).to(device)
                attended = attends(query[rows], key, value, own, pattern)
                expected = plainly(query[rows], key, value, own, pattern)
                check(task, f"{described}, last tokens", dtype, attended, expected)


def attention_kernels(
    device: torch.device, dtype: torch.dtype, head_dim: int, pattern: AttentionPattern
) -> Mapping[str, Attend]:
    """What models get; and our own kernel, which stands in for flash attention, in one of its types."""
    if device.type != "cuda":
        return {"attention by runs": attend_by_runs}
    chosen = choose_kernel(device, dtype, head_dim, pattern.bias is not None, pattern.softcap is not None)
    kernels = {f"attention by {getattr(chosen, '__name__', type(chosen).__name__)}": chosen}
    ours = our_kernel(device) if dtype == torch.bfloat16 else None
    return kernels if ours in (None, chosen) else {**kernels, "our attention": ours}


def check_alone(
    task: Task,
    name: str,
    attends: Attend,
    heads: tuple[Tensor, Tensor, Tensor],
    together: Tensor,
    *,
    pattern: AttentionPattern,
) -> None:
    """The fifth sequence, of 17 tokens, behind four others of 13."""
    own = slice(13, 30)
    query, key, value = (tensor[own] for tensor in heads)
    alone = attends(query, key, value, layout_of([17], together.device), pattern)
    is_same = torch.equal(alone, together[own])
    task.record.add(shown=False, check=f"{name}, alone", is_same=is_same)
    if not is_same and together.is_cuda:
        task.record.fail(f"{name}: a sequence has other bits alone than in a batch")


@torch.inference_mode()
def check_disentangled_attention(task: Task, device: torch.device) -> None:
    from engine_svc.models.kernels.attention_examples import ATTENTION_KERNELS

    kernel = ATTENTION_KERNELS["disentangled attention"]
    for dtype in ERROR_MAX:
        arguments = kernel.example(device, dtype)
        check(task, f"disentangled attention, {dtype}", dtype, kernel.fused(*arguments), kernel.plain(*arguments))


def check(task: Task, name: str, dtype: torch.dtype, ours: Tensor, theirs: Tensor) -> None:
    error = float((ours.double() - theirs.double()).norm() / theirs.double().norm())
    task.record.add(shown=False, check=name, error=error)
    if not error <= ERROR_MAX[dtype]:  # a NaN is not
        task.record.fail(f"{name}: {error:.1e} from its plain version")


def plainly(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    """The reference: float32 arithmetic on the same inputs."""
    return attend_by_runs(query.float(), key.float(), value.float(), layout, pattern)


def on_device(pattern: AttentionPattern, device: torch.device) -> AttentionPattern:
    return pattern if pattern.bias is None else AttentionPattern(bias=pattern.bias.to(device))


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
