"""Explains quantization for `heddle config check`: whether the hardware multiplies the format, whether a build comes
first, and which texts calibrate it. `config_check` calls this.
"""

import importlib
from pathlib import Path
from typing import Any

from heddle.checkpoint import Checkpoint
from heddle.cli.config_command import ConfiguredServe
from heddle.cli.served_build import Finder, needs_build
from heddle.quantization import NO_QUANT

CPU_INFO = Path("/proc/cpuinfo")
CPU_BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}
# Every CPU with AMX has it.
CPU_INT8_FLAGS = {"avx512_vnni"}


def cpu_has(flags: set[str]) -> bool:
    """Returns whether Linux lists one of these flags."""
    try:
        words = CPU_INFO.read_text(encoding="utf-8").split()
    except OSError:
        return False
    return not flags.isdisjoint(words)


def find_stored(configured: ConfiguredServe, checkpoint: Checkpoint | None) -> Any:
    """Returns the engine's `StoredQuantization` if the checkpoint is on this machine and already quantized, else None.
    Raises CheckpointError if the engine would refuse it."""
    if checkpoint is None or configured.settings.engine == "simulated":
        return None
    quantization = importlib.import_module("engine_svc.models.quantization")
    stored = quantization.read_stored_quantization(checkpoint)
    if stored is not None:
        quantization.find_quantization(checkpoint, configured.settings.quantization)
    return stored


def explain_quantization(configured: ConfiguredServe, stored: Any) -> str:
    """`stored` is what `find_stored` returns."""
    stated = configured.settings.quantization
    if stored is not None:
        numbers = importlib.import_module("engine_svc.models.quantization").FORMATS[stored.algorithm]
        cache = "; the engine keeps no cache of keys and values" if stored.cache_algorithm else ""
        return f"{stored.algorithm}, as the checkpoint stores it{explain_products(numbers, configured)}{cache}"
    if stated == NO_QUANT:
        return "none: weights stay as the checkpoint stores them"
    linears = "the linears of MLPs, not of attention" if stated.endswith("mlp_only") else "all linears"
    cache = "; the engine keeps no cache of keys and values, which _kv is for" if stated.endswith("_kv") else ""
    return f"{stated} for {linears}{explain_products(stated, configured)}{cache}"


def explain_products(stated: str, configured: ConfiguredServe) -> str:
    engine = importlib.import_module("engine_svc.device")
    device = engine.find_device(configured.settings.device) if configured.gpus else engine.CPU
    on_gpu = engine.QUANTIZED_PRODUCTS.get(stated.partition("_")[0])
    numbers = stated[:3] if on_gpu else "int8"
    if device.kind == "cpu":
        is_native, here = numbers == "int8" and cpu_has(CPU_INT8_FLAGS), "this CPU"
    else:
        is_native, here = on_gpu is not None and device.capability >= on_gpu, f"the engine on {device}"
    if is_native:
        return f": {here} multiplies {numbers}"
    return f", to save memory: {here} does not multiply {numbers}, so weights are widened when they are used"


def explain_build(configured: ConfiguredServe, stored: Any, finder: Finder | None) -> str:
    settings = configured.settings
    if finder is None and (settings.quantization == NO_QUANT or stored is not None):
        return "none needed: the checkpoint is loaded as it is"
    if finder is None:
        return "none needed: it is quantized while it is loaded"
    reason = "" if settings.store else f": {settings.quantization} needs calibration"
    store = f"that of {settings.store}, or " if settings.store else ""
    if finder.request and finder.cache.find(finder.request.key):
        return f"{store}the one in the cache{reason}"
    published = " and published there" if settings.publish else ""
    return f"{store}made once{published}, then taken from the cache{reason}{explain_builders(configured, finder)}"


def explain_builders(configured: ConfiguredServe, finder: Finder) -> str:
    wanted = finder.settings.builder_gpus
    if not is_calibrated(finder):
        return ""
    if not wanted:
        return "; calibrated on the CPU"
    if configured.gpus < wanted:
        here = f"{configured.gpus} of the {wanted} GPUs" if configured.gpus else f"the CPU, not the {wanted} GPUs"
        return f"; calibrated on {here} that num_builder_gpus asks for"
    return f"; calibrated on {wanted} of {configured.gpus} GPUs, as num_builder_gpus asks"


def is_calibrated(finder: Finder) -> bool:
    quantization = finder.settings.quantization
    # Imported only for quantized models, because it imports torch.
    return quantization != NO_QUANT and bool(
        importlib.import_module("engine_svc.build.quantizer").needs_calibration(quantization)
    )


def explain_calibration(finder: Finder | None) -> str:
    if finder is None or not is_calibrated(finder):
        return "none needed"
    build = finder.settings
    texts = f"the lines of {build.calibration_texts}" if build.calibration_texts else "Heddle's own texts"
    return (
        f"on at most {build.calibration_size} of {texts}, each cut to {build.calibration_tokens_max} tokens; "
        f"calib_dataset is not downloaded"
    )


def find_build(configured: ConfiguredServe) -> Finder | None:
    """Returns None if `heddle serve` would load the checkpoint without a build. Raises ConfigurationError."""
    if not needs_build(configured.settings):
        return None
    return Finder.of(configured.settings, configured.environ, lambda _: None)
