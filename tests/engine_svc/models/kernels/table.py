"""All Triton kernels by name, each beside the same computation with PyTorch's own operations, and with example
arguments. The tests of this folder and `tests.gpu` compare the two."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine_svc.device import FP8
from engine_svc.models.activations import Activation, apply_activation
from engine_svc.models.architectures.deberta import DisentangledAttention
from engine_svc.models.attention import attend_by_group
from engine_svc.models.attention_pattern import AttentionPattern, alibi_bias
from engine_svc.models.float4 import Float4Rows, dequantize_float4, fit_to_float4, make_byte_table
from engine_svc.models.float8 import Float8Rows, dequantize_float8, quantize_to_float8_by_torch
from engine_svc.models.kernels.attention import attend_by_kernel
from engine_svc.models.kernels.gated import activate_gate, activate_gate_to_float8
from engine_svc.models.kernels.launch import CAPABILITY_MIN
from engine_svc.models.kernels.norms import add_and_normalize, normalize
from engine_svc.models.kernels.quantize import dequantize_float4_by_kernel, quantize_to_float8_by_kernel
from engine_svc.models.kernels.rotary import rotate_in_place
from engine_svc.models.norms import LayerNorm, RMSNorm
from engine_svc.models.rotary import Rotation, rotate_by_torch
from tests.engine_svc.models.layouts import make_layout

AnyNorm = LayerNorm | RMSNorm

LENGTHS = (1, 2, 17, 64, 500, 1025)
LENGTHS_CPU = (1, 17)


@dataclass(frozen=True, slots=True)
class Kernel:
    fused: Callable[..., Tensor]  # leaves its arguments as they are
    plain: Callable[..., Tensor]
    # Random arguments for both: realistic sizes on a GPU, small ones on a CPU.
    example: Callable[[torch.device, torch.dtype], Sequence[Any]]
    capability_min: tuple[int, int] = CAPABILITY_MIN  # of the card


def dequantize(rows: Tensor | Float8Rows) -> Tensor:
    assert isinstance(rows, Float8Rows)
    return dequantize_float8(rows, torch.float32)


def normalize_by_torch(hidden: Tensor, norm: AnyNorm, update: Tensor | None = None) -> Tensor:
    total = hidden if update is None else update + hidden
    return norm.compute_by_torch(total) if isinstance(norm, RMSNorm) else norm(total)


def normalize_to_float8_by_torch(hidden: Tensor, norm: AnyNorm, update: Tensor) -> Tensor:
    """The kernel rounds the norm once, to FP8."""
    if isinstance(norm, LayerNorm):
        norm = LayerNorm(norm.weight.float(), None if norm.bias is None else norm.bias.float(), norm.epsilon)
    return dequantize(quantize_to_float8_by_torch(normalize_by_torch((update + hidden).float(), norm)))


def rms_norm(weight: Tensor, dtype: torch.dtype) -> RMSNorm:
    return RMSNorm(weight, 1e-6)


def layer_norm(weight: Tensor, dtype: torch.dtype) -> LayerNorm:
    return LayerNorm(weight.to(dtype), weight.roll(1).to(dtype), 1e-12)


def norm_example(
    device: torch.device,
    dtype: torch.dtype,
    *,
    make_norm: Callable[[Tensor, torch.dtype], AnyNorm],
    has_update: bool = True,
) -> tuple[Any, ...]:
    rows, width = (4099, 4096) if device.type == "cuda" else (3, 200)
    hidden, update = torch.randn(2, rows, width, device=device).to(dtype)
    norm = make_norm(torch.randn(width, device=device), dtype)
    return (hidden, norm, update) if has_update else (hidden, norm)


def norm_kernels(kind: str, make_norm: Callable[[Tensor, torch.dtype], AnyNorm]) -> Mapping[str, Kernel]:
    sum_example = partial(norm_example, make_norm=make_norm)
    return {
        kind: Kernel(normalize, normalize_by_torch, partial(sum_example, has_update=False)),
        f"{kind} of a sum": Kernel(normalize, normalize_by_torch, sum_example),
        f"{kind} of a sum to float8": Kernel(
            lambda hidden, norm, update: dequantize(add_and_normalize(hidden, norm, update.clone(), as_float8=True)),
            normalize_to_float8_by_torch,
            sum_example,
            FP8,
        ),
    }


def rotate_copy(projected: Tensor, heads: int, rotation: Rotation, norm: RMSNorm | None) -> Tensor:
    """The first `heads` of each row of the projection, rotated."""
    own = projected.clone()[:, :heads]
    rotate_in_place(own, rotation, norm)
    return own


def rotate_copy_by_torch(projected: Tensor, heads: int, rotation: Rotation, norm: RMSNorm | None) -> Tensor:
    own = projected[:, :heads]
    return rotate_by_torch(own if norm is None else norm.compute_by_torch(own), rotation)


def rotary_example(
    device: torch.device, dtype: torch.dtype, *, has_norm: bool, rotated: float = 1.0
) -> tuple[Tensor, int, Rotation, RMSNorm | None]:
    rows, heads, kv_heads, head_dim = (4099, 32, 8, 128) if device.type == "cuda" else (5, 3, 1, 24)
    projected = torch.randn(rows, heads + 2 * kv_heads, head_dim, device=device).to(dtype)
    angles = torch.randn(rows, 1, int(head_dim * rotated) // 2, device=device)
    weight = torch.randn(heads + kv_heads, head_dim, device=device)
    norm = RMSNorm(weight, 1e-6) if has_norm else None
    return projected, heads + kv_heads, (angles.cos().to(dtype), angles.sin().to(dtype)), norm


def activate_gate_by_torch(gate_up: Tensor, activation: Activation) -> Tensor:
    gate, up = gate_up.chunk(2, 1)
    return apply_activation(gate, activation) * up


def gate_example(device: torch.device, dtype: torch.dtype, *, activation: Activation) -> tuple[Tensor, Activation]:
    rows, width = (1025, 12288) if device.type == "cuda" else (3, 1500)
    return torch.randn(rows, 2 * width, device=device).to(dtype), activation


def rows_example(device: torch.device, dtype: torch.dtype) -> tuple[Tensor]:
    return (torch.randn((4099, 4096) if device.type == "cuda" else (3, 200), device=device).to(dtype),)


def float4_example(device: torch.device, dtype: torch.dtype) -> tuple[Float4Rows, torch.dtype]:
    weight = torch.randn((4096, 4096) if device.type == "cuda" else (5, 96), device=device)
    weight[0] *= torch.logspace(-6, 0, weight.shape[1], device=device)  # some scales are not normal numbers
    return fit_to_float4(weight), dtype


def choose_lengths(device: torch.device) -> Sequence[int]:
    return LENGTHS_CPU if device.type == "cpu" else LENGTHS


def attention_example(
    heads: tuple[int, int, int],
    make_pattern: Callable[[torch.device], AttentionPattern],
    device: torch.device,
    dtype: torch.dtype,
) -> Sequence[Any]:
    """`heads` are the number of query heads, that of kv heads, and head_dim."""
    num_heads, num_kv_heads, head_dim = heads
    lengths = choose_lengths(device)
    projected = torch.randn(sum(lengths), num_heads + 2 * num_kv_heads, head_dim, device=device).to(dtype)
    split = torch.split(projected, [num_heads, num_kv_heads, num_kv_heads], 1)
    return *split, make_layout(lengths, device), make_pattern(device)


def make_alibi(device: torch.device) -> AttentionPattern:
    return AttentionPattern(bias=alibi_bias(12, max(choose_lengths(device)), device))


def disentangled_example(device: torch.device, dtype: torch.dtype) -> Sequence[Any]:
    """DeBERTa v3's sizes, but with 64 buckets."""
    heads, head_dim, num_buckets, lengths = 12, 64, 64, choose_lengths(device)
    longest = max(lengths)
    position_keys, position_queries = torch.randn(2, heads, head_dim, num_buckets, device=device).to(dtype)
    attention = DisentangledAttention(
        qkv_proj=torch.nn.Identity(),
        o_proj=torch.nn.Identity(),
        num_heads=heads,
        num_kv_heads=heads,
        pattern=AttentionPattern(),
        scale=(3 * head_dim) ** -0.5,
        position_keys=position_keys,
        position_queries=position_queries,
        num_buckets=num_buckets,
        buckets=(torch.arange(1 - longest, longest, device=device) + num_buckets // 2).clamp(0, num_buckets - 1),
    )
    projected = torch.randn(sum(lengths), 3, heads, head_dim, device=device).to(dtype)
    return attention, *projected.unbind(1), make_layout(lengths, device)


ATTENTION_KERNELS: Mapping[str, Kernel] = {
    **{
        name: Kernel(attend_by_kernel, attend_by_group, partial(attention_example, heads, make_pattern))
        for name, heads, make_pattern in (
            ("attention", (12, 12, 32), lambda _: AttentionPattern()),
            (
                "attention, causal window, softcap",
                (8, 4, 256),
                lambda _: AttentionPattern(window_left=100, window_right=0, softcap=50.0),
            ),
            ("attention, ALiBi", (12, 12, 64), make_alibi),
        )
    },
    "disentangled attention": Kernel(
        DisentangledAttention.attend_by_kernel, DisentangledAttention.attend_by_group, disentangled_example
    ),
}

ROW_KERNELS: Mapping[str, Kernel] = {
    **norm_kernels("RMS norm", rms_norm),
    **norm_kernels("layer norm", layer_norm),
    "rotary": Kernel(rotate_copy, rotate_copy_by_torch, partial(rotary_example, has_norm=False)),
    "rotary of normalized heads": Kernel(rotate_copy, rotate_copy_by_torch, partial(rotary_example, has_norm=True)),
    "rotary of half of each normalized head": Kernel(
        rotate_copy, rotate_copy_by_torch, partial(rotary_example, has_norm=True, rotated=0.5)
    ),
    **{
        f"gate with {activation.value}": Kernel(
            activate_gate, activate_gate_by_torch, partial(gate_example, activation=activation)
        )
        for activation in Activation
    },
    "gate with silu to float8": Kernel(
        lambda gate_up, activation: dequantize(activate_gate_to_float8(gate_up, activation)),
        # The kernel rounds once, to FP8.
        lambda gate_up, activation: dequantize(
            quantize_to_float8_by_torch(activate_gate_by_torch(gate_up.float(), activation))
        ),
        partial(gate_example, activation=Activation.SILU),
        FP8,
    ),
    "rows to float8": Kernel(
        lambda rows: dequantize(quantize_to_float8_by_kernel(rows)),
        lambda rows: dequantize(quantize_to_float8_by_torch(rows)),
        rows_example,
        FP8,
    ),
    "FP4 weights to 16 bit": Kernel(
        dequantize_float4_by_kernel,
        lambda rows, dtype: dequantize_float4(rows, make_byte_table(dtype, rows.packed.device)),
        float4_example,
    ),
}

KERNELS: Mapping[str, Kernel] = {**ROW_KERNELS, **ATTENTION_KERNELS}
