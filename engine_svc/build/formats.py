"""Quantizes weights to the number formats of NVIDIA's ModelOpt: names, types, shapes and contents of the tensors that
replace each weight. `engine_svc.build.quantizer` calls this; the engine and TensorRT-LLM read the result.

The layouts follow `export_hf_checkpoint` (modelopt/torch/export/unified_export_hf.py and quant_utils.py of
NVIDIA/Model-Optimizer, version 0.40).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine_svc.models.float4 import BLOCK, FLOAT4_MAX, LARGEST_MIN, compute_shared_scale, fit_to_float4
from engine_svc.models.float8 import FLOAT8, FLOAT8_MAX, Float8Rows, quantize_to_float8
from engine_svc.models.int8 import INT8_MAX, Int8Rows, quantize_to_int8

# Quantize this many elements at a time, so that float32 copies stay small.
ELEMENTS_AT_A_TIME = 1 << 22


@dataclass(frozen=True, slots=True)
class TensorSpec:
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class Format(Protocol):
    """Quantizes the weights [outputs, inputs] of one linear."""

    def plan(self, name: str, outputs: int, inputs: int) -> list[TensorSpec]:
        """`name` is without ".weight"."""

    def quantize(self, weight: Tensor) -> list[Tensor]:
        """Returns the tensors of `plan`, in its order, on the weight's device."""


@dataclass(frozen=True, slots=True)
class ScaledRows:
    """One scale for each output, none for inputs. Equal to what the engine computes while it loads 16-bit weights."""

    dtype: torch.dtype
    quantize_rows: Callable[[Tensor], Float8Rows | Int8Rows]

    def plan(self, name: str, outputs: int, inputs: int) -> list[TensorSpec]:
        return [
            TensorSpec(f"{name}.weight", (outputs, inputs), self.dtype),
            TensorSpec(f"{name}.weight_scale", (outputs,), torch.float32),
        ]

    def quantize(self, weight: Tensor) -> list[Tensor]:
        values = torch.empty(weight.shape, dtype=self.dtype, device=weight.device)
        scales = torch.empty(len(weight), dtype=torch.float32, device=weight.device)
        for place, rows in split_rows(weight):
            quantized = self.quantize_rows(rows)
            values[place], scales[place] = quantized.values, quantized.scales.squeeze(1)
        return [values, scales]


FLOAT8_ROWS = ScaledRows(FLOAT8, quantize_to_float8)  # FP8_PER_CHANNEL_PER_TOKEN
INT8_ROWS = ScaledRows(torch.int8, quantize_to_int8)  # W8A16


@dataclass(frozen=True, slots=True)
class NVFloat4:
    """NVFP4: two elements in a byte, an E4M3 scale for each 16 of them, and one scale for all linears of a group, which
    ModelOpt's `preprocess_linear_fusion` shares too. The engine scales inputs per token. TensorRT-LLM uses
    `input_scale` if there is one, else also scales per token."""

    weight_scale_2: float
    input_scale: float | None  # None without calibration

    @classmethod
    def of(cls, largest_weight: float, largest_input: float | None) -> "NVFloat4":
        """Takes the largest magnitudes of a group's weights and inputs. `fit_to_float4` tries block scales up to 1.5
        times as large, so they are normalized to LARGEST_FITTED_SCALE instead of ModelOpt's 448."""
        input_scale = None if largest_input is None else max(largest_input, LARGEST_MIN) / (FLOAT4_MAX * FLOAT8_MAX)
        return cls(float(compute_shared_scale(torch.tensor(largest_weight))), input_scale)

    def plan(self, name: str, outputs: int, inputs: int) -> list[TensorSpec]:
        scales = ["weight_scale_2"] + ["input_scale"] * (self.input_scale is not None)
        return [
            TensorSpec(f"{name}.weight", (outputs, inputs // 2), torch.uint8),
            TensorSpec(f"{name}.weight_scale", (outputs, inputs // BLOCK), FLOAT8),
            *(TensorSpec(f"{name}.{scale}", (), torch.float32) for scale in scales),
        ]

    def quantize(self, weight: Tensor) -> list[Tensor]:
        outputs, inputs = weight.shape
        packed = torch.empty(outputs, inputs // 2, dtype=torch.uint8, device=weight.device)
        block_scales = torch.empty(outputs, inputs // BLOCK, dtype=FLOAT8, device=weight.device)
        overall = make_scalar(self.weight_scale_2, weight.device)
        for place, rows in split_rows(weight):
            quantized = fit_to_float4(rows, overall.view(1, 1))
            packed[place], block_scales[place] = quantized.packed, quantized.block_scales
        inputs_scale = [] if self.input_scale is None else [make_scalar(self.input_scale, weight.device)]
        return [packed, block_scales, overall, *inputs_scale]


@dataclass(frozen=True, slots=True, eq=False)
class SmoothInt8:
    """W8A8_SQ_PER_CHANNEL: before quantization, inputs are multiplied by `pre_quant_scale`, and weight columns divided
    by it. The engine then scales inputs per token; `input_scale` is for other readers."""

    pre_quant_scale: Tensor  # [inputs], in the type of the stored weights, as in ModelOpt
    input_scale: float

    @classmethod
    def of(cls, pre_quant_scale: Tensor, largest_input: float) -> "SmoothInt8":
        """`largest_input` is the largest magnitude of the smoothed inputs."""
        return cls(pre_quant_scale, max(largest_input, LARGEST_MIN) / INT8_MAX)

    def plan(self, name: str, outputs: int, inputs: int) -> list[TensorSpec]:
        return [
            *INT8_ROWS.plan(name, outputs, inputs),
            TensorSpec(f"{name}.pre_quant_scale", (inputs,), self.pre_quant_scale.dtype),
            TensorSpec(f"{name}.input_scale", (), torch.float32),
        ]

    def quantize(self, weight: Tensor) -> list[Tensor]:
        pre_quant_scale = self.pre_quant_scale.to(weight.device)
        smoothed = ScaledRows(torch.int8, lambda rows: quantize_to_int8(rows.float() / pre_quant_scale.float()))
        return [*smoothed.quantize(weight), pre_quant_scale.clone(), make_scalar(self.input_scale, weight.device)]


def split_rows(weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    step = max(1, ELEMENTS_AT_A_TIME // max(1, weight.shape[1]))
    for start in range(0, len(weight), step):
        place = slice(start, min(start + step, len(weight)))
        yield place, weight[place]


def make_scalar(value: float, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=torch.float32, device=device)
