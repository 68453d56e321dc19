"""Says what `heddle serve CONFIG` would run on this machine, and why. `heddle config check` prints it.

Downloads nothing, and imports torch only for a model that is to be quantized. What depends on a model that is not on
this machine yet, or on the compute capability of a GPU, is said as a rule.
"""

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.model_source import PACKAGED_NAMES, locate, packaged_folder
from heddle.checkpoint.weight_files import has_weights
from heddle.cli.config_command import HUB_TOKEN_VARIABLE, ConfiguredServe
from heddle.cli.serve import check_variables
from heddle.config.translation import ENGINES
from heddle.rpc.settings import resolve

SERVICES = {
    "HEDDLE_ENGINE_": ("engine_svc.settings", "EngineSettings"),
    "HEDDLE_TOKENIZER_": ("tokenizer_svc.settings", "TokenizerSettings"),
    "HEDDLE_GATEWAY_": ("http_gateway.settings", "GatewaySettings"),
}

CPU_INFO = Path("/proc/cpuinfo")
CPU_BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}

VECTOR_KINDS = (ModelKind.EMBEDDER, ModelKind.MULTI_VECTOR_EMBEDDER)

# The default route of the gateway for each kind, and further routes that make sense for it.
ROUTES: Mapping[ModelKind, tuple[str, ...]] = {
    ModelKind.EMBEDDER: ("/v1/embeddings",),
    ModelKind.MULTI_VECTOR_EMBEDDER: ("/embed_all",),
    ModelKind.SPARSE_EMBEDDER: ("/embed_sparse",),
    ModelKind.RERANKER: ("/rerank, or /predict for a body without a query", "/rerank", "/predict"),
    ModelKind.CLASSIFIER: ("/predict",),
    ModelKind.TOKEN_CLASSIFIER: ("/predict_tokens",),
}


def check_settings(environ: Mapping[str, str]) -> None:
    """Raises ConfigurationError if a service would refuse its variables. Imports their settings only here."""
    check_variables(environ)
    for prefix, (module, name) in SERVICES.items():
        resolve(getattr(importlib.import_module(module), name), [], environ, prog=module, env_prefix=prefix)


def explain(configured: ConfiguredServe) -> str:
    """Raises CheckpointError for a model on this machine that cannot be read."""
    checkpoint = read_if_here(configured)
    topics = {
        "model": explain_model(configured, checkpoint),
        "engine": explain_engine(configured),
        "device": explain_device(configured),
        "dtype": explain_dtype(configured, checkpoint),
        "quantization": explain_quantization(configured),
        "batches": explain_batches(configured),
        "texts": explain_texts(configured, checkpoint),
        "default route": explain_route(configured, checkpoint),
    }
    lines = [f"{topic:<15}{text}" for topic, text in topics.items()]
    loaded = configured.loaded
    ignored = [f"  {place}: {reason}" for place, reason in loaded.without_effect.items()]
    return "\n".join([f"{loaded.path} is valid. `heddle serve {loaded.path}` would run:", *lines, *list_under(ignored)])


def list_under(ignored: list[str]) -> Iterator[str]:
    if ignored:
        yield "without effect here:"
        yield from ignored


def read_if_here(configured: ConfiguredServe) -> Checkpoint | None:
    """None for a hub model that has not been downloaded."""
    settings = configured.settings
    is_local = configured.loaded.config.trt_llm.build.checkpoint_repository.source == "LOCAL"
    folder = locate(settings.model) if is_local else find_downloaded(settings.model, settings.revision)
    if folder is None:
        return None
    checkpoint = Checkpoint.read(folder, settings.model, pooling=settings.pooling, score_tokens=settings.score_tokens)
    if settings.quantization != "no_quant":  # the engine knows which models can be quantized; it imports torch
        importlib.import_module("engine_svc.backends.loading").check_quantizable(settings, checkpoint)
    return checkpoint


def find_downloaded(name: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except Exception:  # noqa: BLE001 - its errors have no common base class
        return packaged_folder() if name in PACKAGED_NAMES and not revision else None
    return folder if (folder / "config.json").is_file() else None


def explain_model(configured: ConfiguredServe, checkpoint: Checkpoint | None) -> str:
    repository = configured.loaded.config.trt_llm.build.checkpoint_repository
    model = configured.settings.model
    if repository.source == "LOCAL":
        place = f"the folder {model}"
    else:
        revision = f" at {configured.settings.revision}" if configured.settings.revision else ""
        token = "with a token" if configured.environ.get(HUB_TOKEN_VARIABLE) else "without a token: public models only"
        is_here = checkpoint is not None and has_weights(checkpoint.folder)
        state = "which is on this machine" if is_here else f"which will be downloaded {token}"
        place = f"{model}{revision} of the Hugging Face hub, {state}"
    return f"{place} ({checkpoint.architecture}, {spelled(checkpoint.kind)})" if checkpoint else place


def spelled(kind: ModelKind) -> str:
    return f"{'an' if kind[0] == 'e' else 'a'} {kind.replace('_', ' ')}"


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
    if not cpu_has_bfloat16():
        return "float32: this CPU does not multiply bfloat16"
    if checkpoint is None:
        return "bfloat16 for vectors, which this CPU multiplies; float32 for scores and sparse vectors"
    if checkpoint.kind in VECTOR_KINDS:
        return "bfloat16, which this CPU multiplies"
    return "float32: rounding would change scores and sparse vectors, and a CPU can afford it"


def cpu_has_bfloat16() -> bool:
    """By the flags that Linux lists."""
    try:
        words = CPU_INFO.read_text(encoding="utf-8").split()
    except OSError:
        return False
    return not CPU_BFLOAT16_FLAGS.isdisjoint(words)


def explain_quantization(configured: ConfiguredServe) -> str:
    stated = configured.settings.quantization
    if stated == "no_quant":
        return "none: weights stay as the checkpoint stores them"
    where = "if the GPU multiplies it, else only to save memory" if configured.gpus else "to save memory, on a CPU"
    return f"{stated} for the linears of a decoder, while they are loaded, {where}"


def explain_batches(configured: ConfiguredServe) -> str:
    tokens = configured.environ.get("HEDDLE_ENGINE_BATCH_TOKENS_MAX") or ("16384" if configured.gpus else "512")
    items = configured.environ.get("HEDDLE_ENGINE_BATCH_ITEMS_MAX") or "1024"
    stated = configured.loaded.config.trt_llm.build.max_num_tokens
    is_smaller = not configured.gpus and stated is not None and str(stated) != tokens
    note = f": on a CPU a pass of {stated} would only take longer" if is_smaller else ""
    return f"at most {tokens} tokens and {items} texts a forward pass{note}"


def explain_texts(configured: ConfiguredServe, checkpoint: Checkpoint | None) -> str:
    length = f"{checkpoint.sequence_tokens_max} tokens" if checkpoint else "as many tokens as the model's files say"
    is_cut = configured.environ.get("HEDDLE_TOKENIZER_TRUNCATE", "true").lower() in ("true", "1", "yes", "on")
    return f"up to {length}; longer ones are {'cut' if is_cut else 'refused'} unless a request says otherwise"


def explain_route(configured: ConfiguredServe, checkpoint: Checkpoint | None) -> str:
    stated = configured.environ.get("HEDDLE_GATEWAY_DEFAULT_ROUTE")
    if not stated:
        known = f"{ROUTES[checkpoint.kind][0]}, because the model is {spelled(checkpoint.kind)}" if checkpoint else ""
        return known or "the one for the model's kind"
    if checkpoint and stated not in ROUTES[checkpoint.kind]:
        fitting = " or ".join(route for route in ROUTES[checkpoint.kind] if " " not in route)
        return f"{stated}, which this model does not answer: it is {spelled(checkpoint.kind)} (take {fitting})"
    return f"{stated}, as stated"
