"""Says what `heddle serve CONFIG` would run on this machine, and why. `heddle config check` prints it.

Downloads nothing, and imports torch only for a model that is to be quantized. What depends on a model that is not on
this machine yet, or on the compute capability of a GPU, is said as a rule.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.model_source import PACKAGED_NAMES, locate, looks_like_path, packaged_folder
from heddle.checkpoint.sources.remote_folder import find_snapshot
from heddle.checkpoint.weight_files import has_weights
from heddle.cli.config_command import ConfiguredServe
from heddle.cli.config_quantization import (
    CPU_BFLOAT16_FLAGS,
    cpu_has,
    explain_build,
    explain_calibration,
    explain_quantization,
    find_build,
    find_stored,
)
from heddle.cli.default_route import ROUTES, describe_kind, find_mismatch
from heddle.cli.serve import check_variables
from heddle.config.credentials import HUB_VARIABLE
from heddle.config.schema import NUM_TOKENS
from heddle.config.translation import CPU_NUM_TOKENS, ENGINES
from heddle.remote.addresses import is_address, parse_address
from heddle.rpc.settings import resolve

SERVICES = {
    "HEDDLE_ENGINE_": ("engine_svc.settings", "EngineSettings"),
    "HEDDLE_TOKENIZER_": ("tokenizer_svc.settings", "TokenizerSettings"),
    "HEDDLE_GATEWAY_": ("http_gateway.settings", "GatewaySettings"),
}

# Where an address leads, by its store.
PLACES = {"s3": "in S3", "gcs": "in Google Cloud Storage", "azure": "in Azure Blob Storage", "web": "on the web"}

VECTOR_KINDS = (ModelKind.EMBEDDER, ModelKind.MULTI_VECTOR_EMBEDDER)


def resolve_services(environ: Mapping[str, str]) -> dict[str, Any]:
    """Returns the settings of each service. Raises ConfigurationError if a service would refuse its variables."""
    check_variables(environ)
    return {
        prefix: resolve(getattr(importlib.import_module(module), name), [], environ, prog=module, env_prefix=prefix)
        for prefix, (module, name) in SERVICES.items()
    }


def explain(configured: ConfiguredServe, services: Mapping[str, Any]) -> str:
    """Raises CheckpointError for a model on this machine that cannot be read."""
    checkpoint = read_if_here(configured)
    default_route = services["HEDDLE_GATEWAY_"].default_route
    stored, build = find_stored(configured, checkpoint), find_build(configured)
    topics = {
        "model": explain_model(configured, checkpoint),
        "engine": explain_engine(configured),
        "device": explain_device(configured),
        "dtype": explain_dtype(configured, checkpoint),
        "quantization": explain_quantization(configured, stored),
        "build": explain_build(configured, stored, build),
        "calibration": explain_calibration(build),
        "batches": explain_batches(configured, services["HEDDLE_ENGINE_"]),
        "texts": explain_texts(checkpoint, truncates=services["HEDDLE_TOKENIZER_"].truncate),
        "default route": explain_route(default_route, checkpoint),
    }
    lines = [f"{topic:<15}{text}" for topic, text in topics.items()]
    loaded = configured.loaded
    lines += ["without effect here:"] if loaded.without_effect else []
    lines += [f"  {place}: {reason}" for place, reason in loaded.without_effect.items()]
    mismatch = find_mismatch(default_route, checkpoint.kind) if checkpoint else ""
    return "\n".join([describe_outcome(f"{loaded.path}", find_obstacle(configured), mismatch), *lines])


def describe_outcome(path: str, obstacle: str, mismatch: str) -> str:
    if obstacle:
        return f"{path} is well-formed, but `heddle serve {path}` would not start here. It states:"
    if mismatch:
        return f"{path} is well-formed, but POST / would fail: the default route is not one of the model. It states:"
    return f"{path} is valid. `heddle serve {path}` would run:"


def find_obstacle(configured: ConfiguredServe) -> str:
    """Why the engine would not start on this machine; "" if nothing is known against it."""
    settings = configured.settings
    if settings.engine == "simulated":
        return ""
    if settings.device.startswith("cuda") and not configured.gpus:
        return f"device {settings.device}: this machine has no NVIDIA GPU"
    if settings.engine == "tensorrt_llm" and not configured.gpus:
        return "engine tensorrt_llm needs an NVIDIA GPU, and the engine would run on a CPU"
    if settings.engine == "tensorrt_llm" and not is_installed("tensorrt_llm"):
        return "engine tensorrt_llm: TensorRT-LLM is not installed here"
    return ""


def read_if_here(configured: ConfiguredServe) -> Checkpoint | None:
    """None for a model that has not been downloaded."""
    settings = configured.settings
    name, revision = settings.model, settings.revision
    folder = locate(name, revision or None) if is_path(name) else find_downloaded(name, revision)
    if folder is None:
        return None
    checkpoint = Checkpoint.read(folder, settings.model, pooling=settings.pooling, score_tokens=settings.score_tokens)
    if settings.quantization != "no_quant":  # the engine knows which models can be quantized; it imports torch
        importlib.import_module("engine_svc.backends.loading").check_quantizable(settings, checkpoint)
    return checkpoint


def is_path(model: str) -> bool:
    """Whether `heddle serve` would look for a folder only. It also refuses an empty name without asking the hub."""
    return not is_address(model) and (not model or looks_like_path(model) or Path(model).expanduser().exists())


def find_downloaded(name: str, revision: str) -> Path | None:
    if is_address(name):
        return find_snapshot(parse_address(name), revision or None)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except Exception:  # noqa: BLE001 - its errors have no common base class
        return packaged_folder() if name in PACKAGED_NAMES and not revision else None
    return folder if (folder / "config.json").is_file() else None


def explain_model(configured: ConfiguredServe, checkpoint: Checkpoint | None) -> str:
    model = configured.settings.model
    if is_path(model):
        place = f"the folder {model}"
    elif is_address(model):
        address = parse_address(model)  # with its password left out
        state = "which is on this machine" if checkpoint else "which will be downloaded into Heddle's cache"
        place = f"{address.shown} {PLACES[address.store]}, {state}"
    else:
        revision = f" at {configured.settings.revision}" if configured.settings.revision else ""
        token = "with a token" if has_hub_token(configured.environ) else "without a token: public models only"
        is_here = checkpoint is not None and has_weights(checkpoint.folder)
        state = "which is on this machine" if is_here else f"which will be downloaded {token}"
        place = f"{model}{revision} of the Hugging Face hub, {state}"
    return f"{place} ({checkpoint.architecture}, {describe_kind(checkpoint.kind)})" if checkpoint else place


def has_hub_token(environ: Mapping[str, str]) -> bool:
    """Whether the config or the environment has one, or the user has logged in."""
    from huggingface_hub import get_token

    return bool(environ.get(HUB_VARIABLE) or get_token())


def explain_engine(configured: ConfiguredServe) -> str:
    base_model = configured.loaded.config.trt_llm.build.base_model
    engine = configured.settings.engine
    if engine != "auto":
        return f"{engine}, because of base_model {base_model}" if engine == ENGINES[base_model] else f"{engine}, as set"
    if not configured.gpus:
        return f"torch: base_model {base_model} would take TensorRT-LLM, which needs an NVIDIA GPU"
    if not is_installed("tensorrt_llm"):
        return f"torch: base_model {base_model} would take TensorRT-LLM, which is not installed here"
    return f"tensorrt_llm if it serves this model on this GPU, else torch (base_model {base_model})"


def is_installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def explain_device(configured: ConfiguredServe) -> str:
    settings, wanted = configured.settings, configured.loaded.config.resources.accelerator
    if settings.engine == "simulated":
        return "none: vectors are made up"
    if settings.device.startswith("cuda") and not configured.gpus:
        return f"{settings.device}, but this machine has no NVIDIA GPU: the engine would not start"
    here = f"{configured.gpus} GPU{'s' if configured.gpus > 1 else ''}" if configured.gpus else "the CPU"
    device = settings.device if settings.device != "auto" else here
    engines = f"{settings.engines} engines on " if settings.engines > 1 else ""
    note = f" (resources.accelerator {wanted} is not looked for: Heddle takes what is here)" if wanted else ""
    return f"{engines}{device}{note}"


def explain_dtype(configured: ConfiguredServe, checkpoint: Checkpoint | None) -> str:
    if configured.settings.dtype != "auto":
        return f"{configured.settings.dtype}, as set"
    if configured.gpus:
        return "bfloat16 on Ampere and newer GPUs, float16 on older ones"
    if not cpu_has(CPU_BFLOAT16_FLAGS):
        return "float32: this CPU does not multiply bfloat16"
    if checkpoint is None:
        return "bfloat16 for vectors, which this CPU multiplies; float32 for scores and sparse vectors"
    if checkpoint.kind in VECTOR_KINDS:
        return "bfloat16, which this CPU multiplies"
    return "float32: rounding would change scores and sparse vectors, and a CPU can afford it"


def explain_batches(configured: ConfiguredServe, engine: Any) -> str:
    tokens = engine.batch_tokens_max or (NUM_TOKENS["encoder"] if configured.gpus else CPU_NUM_TOKENS)
    stated = configured.loaded.config.trt_llm.build.max_num_tokens
    is_smaller = not configured.gpus and stated not in (None, tokens)
    note = f": on a CPU a pass of {stated} would only take longer" if is_smaller else ""
    return f"at most {tokens} tokens and {engine.batch_items_max} texts a forward pass{note}"


def explain_texts(checkpoint: Checkpoint | None, *, truncates: bool) -> str:
    length = f"{checkpoint.sequence_tokens_max} tokens" if checkpoint else "as many tokens as the model's files say"
    return f"up to {length}; longer ones are {'cut' if truncates else 'refused'} unless a request says otherwise"


def explain_route(stated: str, checkpoint: Checkpoint | None) -> str:
    if not stated:
        known = (
            f"{ROUTES[checkpoint.kind][0]}, because the model is {describe_kind(checkpoint.kind)}" if checkpoint else ""
        )
        return known or "the one for the model's kind"
    return (checkpoint and find_mismatch(stated, checkpoint.kind)) or f"{stated}, as stated"
