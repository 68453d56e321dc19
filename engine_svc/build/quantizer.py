"""Quantizes the linear weights of a checkpoint for a build, in the layout of NVIDIA's ModelOpt.

`job` calls `make_quantizer`. `weights_writer` plans the header of each file from names and shapes, then quantizes one
weight at a time.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from engine_svc.build.calibration import Calibration
from engine_svc.build.formats import FLOAT8_ROWS, INT8_ROWS, Format, NVFloat4, SmoothInt8, TensorSpec, make_scalar
from engine_svc.build.linears import LinearGroup, Linears
from engine_svc.build.smoothing import smooth
from engine_svc.device import is_decoder
from engine_svc.models.float4 import BLOCK
from engine_svc.models.float8 import FLOAT8_MAX
from heddle.checkpoint import Checkpoint
from heddle.rpc.settings import ConfigurationError

FP8, NVFP4, INT8, SMOOTH_INT8 = "FP8_PER_CHANNEL_PER_TOKEN", "NVFP4", "W8A16", "W8A8_SQ_PER_CHANNEL"


@dataclass(frozen=True, slots=True)
class Recipe:
    algorithm: str  # ModelOpt's name
    cache: str | None = None  # kv_cache_quant_algo
    mlp_only: bool = False

    @property
    def needs_calibration(self) -> bool:
        return self.cache is not None or self.algorithm in (NVFP4, SMOOTH_INT8)


RECIPES: Mapping[str, Recipe] = {
    "fp8": Recipe(FP8),
    "fp8_kv": Recipe(FP8, cache="FP8"),
    "fp8_mlp_only": Recipe(FP8, mlp_only=True),
    "fp4": Recipe(NVFP4),
    "fp4_kv": Recipe(NVFP4, cache="FP8"),
    "fp4_mlp_only": Recipe(NVFP4, mlp_only=True),
    "weights_int8": Recipe(INT8),
    "smooth_quant": Recipe(SMOOTH_INT8),
}
FOR_ENCODERS = (INT8, SMOOTH_INT8)


def needs_calibration(quantization: str) -> bool:
    """Returns whether this format stores scales of inputs, keys or values. Raises ConfigurationError for an unsupported
    quantization."""
    return find_recipe(quantization).needs_calibration


def check_quantizable(quantization: str, checkpoint: Checkpoint) -> Linears:
    """Returns the linears of the checkpoint. Raises ConfigurationError for an unsupported quantization, and
    CheckpointError if the engine cannot run the checkpoint or it is already quantized."""
    if find_recipe(quantization).algorithm not in FOR_ENCODERS and not is_decoder(checkpoint):
        raise ConfigurationError(
            f"quantization {quantization} is for decoders, not for {checkpoint.config.get('model_type')}"
        )
    return Linears(checkpoint)


def make_quantizer(quantization: str, checkpoint: Checkpoint, calibration: Calibration | None = None) -> "Quantizer":
    """The architecture of `checkpoint`, the source, decides which linears are quantized and which share scales; shared
    scales are computed from its weights. smooth_quant and the *_kv formats need `calibration`. Without it, fp4 has no
    input scales. Raises what `check_quantizable` does."""
    recipe = find_recipe(quantization)
    if calibration is None and (recipe.cache is not None or recipe.algorithm == SMOOTH_INT8):
        raise ConfigurationError(f"quantization {quantization} needs calibration")
    return Quantizer(recipe, check_quantizable(quantization, checkpoint), calibration)


def find_recipe(quantization: str) -> Recipe:
    if quantization not in RECIPES:
        raise ConfigurationError(f"quantization {quantization} is not supported (supported: {', '.join(RECIPES)})")
    return RECIPES[quantization]


class Quantizer:
    """Made by `make_quantizer`."""

    def __init__(self, recipe: Recipe, linears: Linears, calibration: Calibration | None) -> None:
        self._recipe = recipe
        self._linears = linears
        self._calibration = calibration
        self._formats: dict[str, Format] = {}  # by group
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @property
    def config(self) -> Mapping[str, Any]:
        """Content of hf_quant_config.json, like that of `get_quant_config` in modelopt/torch/export/quant_utils.py."""
        stated: dict[str, Any] = {
            "quant_algo": self._recipe.algorithm,
            "kv_cache_quant_algo": self._recipe.cache,
        }
        if self._recipe.algorithm == NVFP4:
            stated["group_size"] = BLOCK
        stated["exclude_modules"] = self._list_excluded()
        return {"producer": {"name": "heddle", "version": version("heddle")}, "quantization": stated}

    def plan(self, name: str, shape: Sequence[int]) -> Sequence[TensorSpec] | None:
        """Returns the tensors that replace `name`, such as `layers.0.mlp.up_proj.weight`, or None for a tensor that is
        not quantized. The name may have the prefix of a model with a head."""
        found = self._linears.find(name)
        if found is None or not self._is_quantized(found[1]):
            return None
        outputs, inputs = shape
        specs = self._make_planning_format(found[1]).plan(name.removesuffix(".weight"), outputs, inputs)
        return [*specs, *(TensorSpec(scale, (), torch.float32) for scale in self._compute_cache_scales(name))]

    def quantize(self, name: str, weight: Tensor) -> Sequence[Tensor]:
        """Returns the tensors of `plan`, in its order, on the weight's device. `weight` is [outputs, inputs] in a
        floating-point type, and may be a mapped file: it is read in blocks of rows and never changed. Thread-safe."""
        found = self._linears.find(name)
        assert found is not None
        cache = [make_scalar(scale, weight.device) for scale in self._compute_cache_scales(name).values()]
        return [*self._get_format(found[1]).quantize(weight), *cache]

    def _is_quantized(self, group: LinearGroup) -> bool:
        if self._recipe.mlp_only and group.is_attention:
            return False
        return self._recipe.algorithm != NVFP4 or self._linears.count_inputs(group) % BLOCK == 0

    def _list_excluded(self) -> list[str]:
        """Returns patterns that match names with and without the prefix of a model with a head. lm_head, as in
        ModelOpt's own files, and other heads are not quantized."""
        excluded = ["lm_head", "score"]
        if self._recipe.mlp_only:
            excluded.append("*self_attn*")
        others = [group for group in self._linears.groups if not self._is_quantized(group)]
        names = [name for group in others if not (self._recipe.mlp_only and group.is_attention) for name in group.names]
        return sorted([*excluded, *(f"*{name}" for name in names)])

    def _make_planning_format(self, group: LinearGroup) -> Format:
        """Returns a format for planning: right names, types and shapes, without reading weights."""
        if self._recipe.algorithm == NVFP4:
            return NVFloat4.of(0.0, self._largest_input(group))
        if self._recipe.algorithm == SMOOTH_INT8:
            assert self._calibration is not None
            inputs = self._calibration.inputs[group.key].largest
            return SmoothInt8.of(torch.ones_like(inputs, dtype=self._linears.stored_type(group)), 0.0)
        return self._get_format(group)

    def _get_format(self, group: LinearGroup) -> Format:
        """Computes the format once; threads of the writer share it."""
        with self._locks[group.key]:
            if group.key not in self._formats:
                self._formats[group.key] = self._compute_format(group)
            return self._formats[group.key]

    def _compute_format(self, group: LinearGroup) -> Format:
        read_weights = partial(self._linears.read_weights, group)
        if self._recipe.algorithm == FP8:
            return FLOAT8_ROWS
        if self._recipe.algorithm == INT8:
            return INT8_ROWS
        if self._recipe.algorithm == NVFP4:
            return NVFloat4.of(max(float(rows.abs().max()) for rows in read_weights()), self._largest_input(group))
        assert self._calibration is not None
        return smooth(read_weights, self._calibration.inputs[group.key], self._linears.stored_type(group))

    def _largest_input(self, group: LinearGroup) -> float | None:
        return None if self._calibration is None else float(self._calibration.inputs[group.key].largest.max())

    def _compute_cache_scales(self, weight: str) -> Mapping[str, float]:
        """Returns the scales to store beside `weight`: k_scale for k_proj, v_scale for v_proj, both for a linear that
        is stored fused, else none."""
        found = self._linears.find(weight)
        if self._recipe.cache is None or found is None or not found[1].is_attention:
            return {}
        name, group = found
        assert self._calibration is not None
        largest = {"k": self._calibration.keys.get(group.key), "v": self._calibration.values.get(group.key)}
        attention = weight.removesuffix(".weight").rpartition(".")[0]
        return {
            f"{attention}.{part}_proj.{part}_scale": number / FLOAT8_MAX
            for part, number in largest.items()
            if number is not None and (len(group.names) == 1 or name.endswith(f".{part}_proj"))
        }
