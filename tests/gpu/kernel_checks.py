"""Compares kernels with the plain operations that they replace, on random inputs of the sizes that models have. Part
of the correctness step of `tests.gpu`."""

import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from engine_svc.models.attention import attend_by_group
from engine_svc.models.attention_pattern import AttentionPattern, alibi_bias
from engine_svc.models.flash_attention import Attend
from engine_svc.models.layout import Layout
from engine_svc.models.prefixes import SharedPrefixes
from tests.engine_svc.models.layouts import make_layout, make_shared_layout
from tests.gpu.attention_kernels import find_kernels
from tests.gpu.running import Task
from tests.gpu.workers import Item

if TYPE_CHECKING:  # needs Triton
    from tests.engine_svc.models.kernels.table import Kernel

ERROR_MAX = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-2}  # relative

# Query heads, key heads and head_dim of MiniLM, bge-large, Qwen3-Embedding-8B and Gemma.
HEADS = ((12, 12, 32), (16, 16, 64), (32, 8, 128), (8, 4, 256))
LENGTHS = (1, 2, 5, 5, 17, 64, 64, 500, 1025)
LENGTHS_DRY = (1, 2, 5, 5, 17)
PATTERNS = {
    "all": AttentionPattern(),
    "causal": AttentionPattern(window_right=0),
    "window": AttentionPattern(window_left=64, window_right=64),
    "causal window, scaled": AttentionPattern(window_left=100, window_right=0, scale=0.1),
    "causal, softcap": AttentionPattern(window_right=0, softcap=5.0),
    "ALiBi": AttentionPattern(bias=alibi_bias(16, max(LENGTHS), torch.device("cpu"))),
}
# Triton takes a second to compile each head size, pattern and type, so not all combinations are checked.
CASES = [(HEADS[1], name) for name in PATTERNS] + [
    (heads, "causal window, scaled") for heads in HEADS if heads != HEADS[1]
]


def list_checks(task: Task) -> Sequence[Item]:
    """Returns the checks, for `workers.share`. Each compiles its own kernels."""
    attention = [
        (f"attention, {heads[0]} heads of {heads[2]}, {name}, {dtype}", partial(check_attention, heads, name, dtype))
        for dtype in ERROR_MAX
        for heads, name in CASES
    ]
    if not has_triton():
        task.record.fail("Triton is not installed: only installed attention kernels are checked")
        return attention
    return [*list_kernel_checks(task), *attention]


def list_kernel_checks(task: Task) -> Sequence[Item]:
    return [
        (f"{name}, {dtype}", partial(check_kernel, name, kernel, dtype))
        for name, kernel in load_kernels(task.device).items()
        for dtype in choose_dtypes(name, is_dry=task.is_dry)
    ]


def choose_dtypes(name: str, *, is_dry: bool) -> Sequence[torch.dtype]:
    if is_dry:
        return [torch.bfloat16]  # Triton's interpreter is slow, and other tests run the kernels there in each type
    return list(ERROR_MAX) if "attention" in name else [torch.bfloat16, torch.float16]


def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def load_kernels(device: str) -> Mapping[str, "Kernel"]:
    """On a CPU, they run in Triton's interpreter."""
    if device == "cpu":
        import tests.engine_svc.models.kernels.interpreter  # noqa: F401
    from tests.engine_svc.models.kernels.table import KERNELS

    return KERNELS


@torch.inference_mode()
def check_kernel(name: str, kernel: "Kernel", dtype: torch.dtype, task: Task) -> None:
    device = torch.device(task.device)
    if device.type == "cuda" and torch.cuda.get_device_capability() < kernel.capability_min:
        task.record.add(shown=False, check=f"{name}, {dtype}", result="not for this card")
        return
    arguments = kernel.example(device, dtype)
    check(task, f"{name}, {dtype}", dtype, kernel.fused(*arguments), kernel.plain(*arguments))


@torch.inference_mode()
def check_attention(sizes: tuple[int, int, int], name: str, dtype: torch.dtype, task: Task) -> None:
    device, lengths = torch.device(task.device), LENGTHS_DRY if task.is_dry else LENGTHS
    layout, pattern, (heads, num_kv_heads, head_dim) = (
        make_layout(lengths, device),
        on_device(PATTERNS[name], device),
        sizes,
    )
    query, key, value = (
        torch.randn(sum(lengths), count, head_dim, device=device).to(dtype)
        for count in (heads, num_kv_heads, num_kv_heads)
    )
    for kernel, attends in find_kernels(device, dtype, head_dim, pattern).items():
        described = f"{kernel}, {heads} heads of {head_dim}, {name}, {dtype}"
        attended = attends(query, key, value, layout, pattern)
        check(task, described, dtype, attended, attend_plainly(query, key, value, layout, pattern))
        check_alone(task, described, attends, (query, key, value), attended, pattern=pattern)
        if pattern.window_right == 0:
            own, rows = make_half_layout(layout, lengths), torch.from_numpy(find_own_rows(lengths)).to(device)
            attended = attends(query[rows], key, value, own, pattern)
            expected = attend_plainly(query[rows], key, value, own, pattern)
            check(task, f"{described}, last tokens", dtype, attended, expected)


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
    alone = attends(query, key, value, make_layout([17], together.device), pattern)
    is_same = torch.equal(alone, together[own])
    task.record.add(shown=False, check=f"{name}, alone", is_same=is_same)
    if not is_same and together.is_cuda:
        task.record.fail(f"{name}: a sequence has other bits alone than in a batch")


def check(task: Task, name: str, dtype: torch.dtype, ours: Tensor, theirs: Tensor) -> None:
    error = float((ours.double() - theirs.double()).norm() / theirs.double().norm())
    task.record.add(shown=False, check=name, error=error)
    if not error <= ERROR_MAX[dtype]:  # a NaN is not
        task.record.fail(f"{name}: {error:.1e} from its plain version")


def attend_plainly(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    """The reference: float32 arithmetic on the same inputs."""
    return attend_by_group(query.float(), key.float(), value.float(), layout, pattern)


def on_device(pattern: AttentionPattern, device: torch.device) -> AttentionPattern:
    return pattern if pattern.bias is None else AttentionPattern(bias=pattern.bias.to(device))


def make_half_layout(layout: Layout, lengths: Sequence[int]) -> Layout:
    """The layout when only the last half of each sequence has queries, as with shared prefixes."""
    own = count_own_tokens(lengths)
    tokens = np.arange(sum(lengths))
    return make_shared_layout(layout, SharedPrefixes(tokens, tokens[: int(own.sum())], own))


def count_own_tokens(lengths: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return (np.array(lengths, np.int32) + 1) // 2


def find_own_rows(lengths: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    stops = np.cumsum(lengths)
    spans = zip(stops - count_own_tokens(lengths), stops, strict=True)
    return np.concatenate([np.arange(start, stop) for start, stop in spans])
