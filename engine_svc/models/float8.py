"""Rows in FP8 (E4M3) with one scale each: the input of an FP8 linear. Norms and activations make them if the next
linear takes them; otherwise `engine_svc.models.quantized_linear` makes them from 16-bit rows."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from engine_svc.device import FP8
from engine_svc.models.kernels.available import runs_kernels

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0


@dataclass(frozen=True, slots=True)
class Float8Rows:
    """The numbers are values * scales."""

    values: Tensor  # float8_e4m3fn [rows, numbers]
    scales: Tensor  # float32 [rows, 1]

    @property
    def device(self) -> torch.device:
        return self.values.device

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> "Float8Rows":
        return Float8Rows(self.values[rows], self.scales[rows])


def takes_float8(layer: object) -> bool:
    """Whether a linear has FP8 weights, and so takes Float8Rows in place of 16-bit rows; or whether a branch of a
    transformer begins with such a linear."""
    return bool(getattr(layer, "takes_float8", False))


@cache
def has_native_float8(device: torch.device) -> bool:
    """Whether the device multiplies FP8 and converts to it."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= FP8


def quantize_rows(rows: Tensor) -> Float8Rows:
    """Each row's largest magnitude becomes FLOAT8_MAX. A row of zeros stays zero; NaN and infinity become NaN."""
    if has_native_float8(rows.device) and runs_kernels(rows.device):
        from engine_svc.models.kernels.quantize import quantize_rows_by_kernel

        return quantize_rows_by_kernel(rows)
    return quantize_rows_plainly(rows)


def quantize_rows_plainly(rows: Tensor) -> Float8Rows:
    largest = rows.abs().amax(-1, keepdim=True).float()
    scales = largest.clamp(min=torch.finfo(torch.float32).tiny) / FLOAT8_MAX
    return Float8Rows((rows.float() / scales).to(FLOAT8), scales)
