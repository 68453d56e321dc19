"""Translates a Truss config into settings of `heddle serve` and its services, as their environment variables.

A more specific statement replaces a general one: HEDDLE_* of `environment_variables`, then `trt_llm`, then TEI's names,
then BEI's defaults. TEI's come after `trt_llm` because BEI passes the fields of `trt_llm` to TEI as flags.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from heddle.config.schema import NUM_TOKENS, TrussConfig

HEDDLE_PREFIXES = ("HEDDLE_SERVE_", "HEDDLE_ENGINE_", "HEDDLE_TOKENIZER_", "HEDDLE_GATEWAY_")

# By base model.
ENGINES = {"encoder": "auto", "encoder_bert": "torch"}

# Tokens of a forward pass on a CPU: the engine's own default there, and the most that it profits from.
CPU_NUM_TOKENS = 512

POOLINGS = {"cls": "cls", "mean": "mean", "splade": "splade", "last-token": "last_token"}
DTYPES = {name: name for name in ("float16", "float32", "bfloat16")}
LOG_LEVELS = {"trace": "debug", "debug": "debug", "info": "info", "warn": "warning", "error": "error"}
MOUNTED_SECRETS = Path("/secrets")


def to_boolean(text: str) -> str:
    return choose({"true": "true", "1": "true", "false": "false", "0": "false"})(text.lower())


def to_count(text: str) -> str:
    if not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"must be a whole number above 0, not {text}")
    return text


def to_log_format(text: str) -> str:
    return "json" if to_boolean(text) == "true" else "text"


def choose(meanings: Mapping[str, str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in meanings:
            raise ValueError(f"must be one of {', '.join(meanings)}, not {text}")
        return meanings[text]

    return convert


@dataclass(frozen=True, slots=True)
class TeiVariable:
    variables: tuple[str, ...]  # of Heddle, that say the same
    convert: Callable[[str], str] = str  # raises ValueError


# https://huggingface.co/docs/text-embeddings-inference/cli_arguments
TEI_VARIABLES = {
    "API_KEY": TeiVariable(("HEDDLE_GATEWAY_API_KEYS",)),
    "AUTO_TRUNCATE": TeiVariable(("HEDDLE_TOKENIZER_TRUNCATE",), to_boolean),
    "CORS_ALLOW_ORIGIN": TeiVariable(("HEDDLE_GATEWAY_CORS_ORIGINS",)),
    "DEFAULT_PROMPT": TeiVariable(("HEDDLE_TOKENIZER_DEFAULT_PROMPT",)),
    "DEFAULT_PROMPT_NAME": TeiVariable(("HEDDLE_TOKENIZER_DEFAULT_PROMPT_NAME",)),
    "DTYPE": TeiVariable(("HEDDLE_SERVE_DTYPE",), choose(DTYPES)),
    "JSON_OUTPUT": TeiVariable(
        ("HEDDLE_ENGINE_LOG_FORMAT", "HEDDLE_TOKENIZER_LOG_FORMAT", "HEDDLE_GATEWAY_LOG_FORMAT"), to_log_format
    ),
    "LOG_LEVEL": TeiVariable(("HEDDLE_SERVE_LOG_LEVEL",), choose(LOG_LEVELS)),
    "MAX_BATCH_REQUESTS": TeiVariable(("HEDDLE_ENGINE_BATCH_ITEMS_MAX",), to_count),
    "MAX_BATCH_TOKENS": TeiVariable(("HEDDLE_ENGINE_BATCH_TOKENS_MAX",), to_count),
    "MAX_CLIENT_BATCH_SIZE": TeiVariable(
        ("HEDDLE_GATEWAY_REQUEST_INPUTS_MAX", "HEDDLE_TOKENIZER_REQUEST_INPUTS_MAX"), to_count
    ),
    "MAX_CONCURRENT_REQUESTS": TeiVariable(("HEDDLE_GATEWAY_REQUESTS_MAX",), to_count),
    "PAYLOAD_LIMIT": TeiVariable(("HEDDLE_GATEWAY_REQUEST_BYTES_MAX",), to_count),
    "POOLING": TeiVariable(("HEDDLE_SERVE_POOLING",), choose(POOLINGS)),
    "SERVED_MODEL_NAME": TeiVariable(("HEDDLE_ENGINE_SERVED_MODEL_NAME", "HEDDLE_TOKENIZER_SERVED_MODEL_NAME")),
}


def is_setting(name: str) -> bool:
    return name in TEI_VARIABLES or name.startswith(HEDDLE_PREFIXES)


def convert_tei_variable(name: str, text: str) -> dict[str, str]:
    """Returns Heddle's variables; none for a name that TEI does not have. Raises ValueError for a wrong value."""
    variable = TEI_VARIABLES.get(name, TeiVariable(()))
    return dict.fromkeys(variable.variables, variable.convert(text)) if variable.variables else {}


def translate(config: TrussConfig, folder: Path, *, gpus: int) -> dict[str, str]:
    """Returns variables of the environment. `folder` is that of the config file; `gpus` is the number of GPUs that
    engines may compute on, 0 for the CPU."""
    tei: dict[str, str] = {}
    for name, text in config.environment_variables.items():
        tei |= convert_tei_variable(name, text)
    own = {name: text for name, text in config.environment_variables.items() if name.startswith(HEDDLE_PREFIXES)}
    variables = {**translate_defaults(config, gpus), **tei, **translate_fields(config, folder, gpus), **own}
    return {name: text for name, text in variables.items() if text}


def translate_defaults(config: TrussConfig, gpus: int) -> dict[str, str]:
    build = config.trt_llm.build
    name = config.model_name or ""
    return {
        "HEDDLE_SERVE_ENGINE": ENGINES[build.base_model],
        "HEDDLE_ENGINE_BATCH_TOKENS_MAX": str(NUM_TOKENS[build.base_model]) if gpus else "",
        "HEDDLE_ENGINE_SERVED_MODEL_NAME": name,
        "HEDDLE_TOKENIZER_SERVED_MODEL_NAME": name,
    }


def translate_fields(config: TrussConfig, folder: Path, gpus: int) -> dict[str, str]:
    """Fields of the file that have a value. Returns no empty texts, which would hide the values of others."""
    build, runtime = config.trt_llm.build, config.trt_llm.runtime
    repository = build.checkpoint_repository
    tokens = build.max_num_tokens if gpus or (build.max_num_tokens or CPU_NUM_TOKENS) < CPU_NUM_TOKENS else None
    is_local = repository.source == "LOCAL"
    cards = int((config.resources.accelerator or "").partition(":")[2] or 1)
    stated = {
        "HEDDLE_SERVE_MODEL": str(folder / Path(repository.repo).expanduser()) if is_local else repository.repo,
        # main is the default, and a stated revision would hide the packaged model.
        "HEDDLE_SERVE_REVISION": repository.revision if repository.revision != "main" else None,
        "HEDDLE_SERVE_QUANTIZATION": build.quantization_type if build.quantization_type != "no_quant" else None,
        "HEDDLE_SERVE_ENGINES": str(min(cards, gpus)) if min(cards, gpus) > 1 else None,
        "HEDDLE_ENGINE_BATCH_TOKENS_MAX": str(tokens) if tokens else None,
        "HEDDLE_ENGINE_BATCH_ITEMS_MAX": str(build.max_batch_size) if build.max_batch_size else None,
        "HEDDLE_ENGINE_SERVED_MODEL_NAME": runtime.served_model_name,
        "HEDDLE_TOKENIZER_SERVED_MODEL_NAME": runtime.served_model_name,
        "HEDDLE_GATEWAY_DEFAULT_ROUTE": runtime.webserver_default_route,
    }
    return {name: value for name, value in stated.items() if value}


def find_hub_token(config: TrussConfig, environ: Mapping[str, str], mounted: Path = MOUNTED_SECRETS) -> str:
    """The secret `runtime_secret_name`, where Truss and Baseten put secrets. "" if there is none."""
    name = config.trt_llm.build.checkpoint_repository.runtime_secret_name
    try:
        return environ.get(f"TRUSS_SECRET_{name}") or (mounted / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
