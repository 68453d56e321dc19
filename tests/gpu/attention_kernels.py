"""The attention kernels for a case, and the one that a model gets. Checks and measurements use their names."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from unittest import mock

import torch

from engine_svc.models import attention
from engine_svc.models.attention import attend_by_group, choose_kernel, find_own_kernel
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.flash_attention import Attend

OURS = "our kernel"


def find_kernels(
    device: torch.device, dtype: torch.dtype, head_dim: int, pattern: AttentionPattern
) -> Mapping[str, Attend]:
    """Returns kernels by name: first the one that models get, then Heddle's own, which replaces flash attention
    where that cannot be used."""
    if device.type != "cuda":
        return {kernel_name(attend_by_group): attend_by_group}
    chosen = choose_kernel(device, dtype, head_dim, pattern.bias is not None, pattern.softcap is not None)
    ours = find_own_kernel(device)
    return {kernel_name(chosen): chosen, **({} if ours is None else {kernel_name(ours): ours})}


def kernel_name(attends: Attend) -> str:
    if getattr(attends, "__name__", "") == "attend_by_kernel":
        return OURS
    kernel = getattr(attends, "kernel", attends)  # of flash-attn, or of torch
    return f"{kernel.__module__}.{kernel.__name__}"


@contextlib.contextmanager
def record_choices(names: set[str]) -> Iterator[None]:
    """Adds the kernels that models get inside the block on a GPU to `names`. A captured graph chooses during its
    capture."""
    choose: Callable[..., Attend] = choose_kernel

    def choose_and_record(*case: object) -> Attend:
        chosen = choose(*case)
        names.add(kernel_name(chosen))
        return chosen

    with mock.patch.object(attention, "choose_kernel", choose_and_record):
        yield
