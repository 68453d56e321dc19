"""Rows in FP8 (E4M3) with one scale each: the input of an FP8 linear. Norms and activations make them where the linear
behind them takes them; `engine_svc.models.quantized_linear` makes them from 16-bit rows everywhere else."""

from dataclasses import dataclass

import torch
from torch import Tensor

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0


@dataclass(frozen=True, slots=True)
class Float8Rows:
    """Stands for values * scales."""

    values: Tensor  # float8_e4m3fn [rows, numbers]
    scales: Tensor  # float32 [rows, 1]

    def __len__(self) -> int:
        return len(self.values)


def quantize_rows(rows: Tensor) -> Float8Rows:
    """Each row's largest magnitude becomes FLOAT8_MAX. A row of zeros stays zero; NaN and infinity become NaN."""
    largest = rows.abs().amax(-1, keepdim=True).float()
    scales = largest.clamp(min=torch.finfo(torch.float32).tiny) / FLOAT8_MAX
    return Float8Rows((rows.float() / scales).to(FLOAT8), scales)
