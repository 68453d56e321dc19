"""Translates a Truss config into settings of `heddle serve` and its services, as their environment variables.

A more specific statement replaces a general one: HEDDLE_* of `environment_variables`, then `trt_llm`, then TEI's names,
then BEI's defaults. TEI's come after `trt_llm` because BEI passes the fields of `trt_llm` to TEI as flags.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from heddle.config.schema import NUM_TOKENS, CheckpointRepository, TrussConfig

HEDDLE_PREFIXES = ("HEDDLE_SERVE_", "HEDDLE_BUILD_", "HEDDLE_ENGINE_", "HEDDLE_TOKENIZER_", "HEDDLE_GATEWAY_")

# By base model.
ENGINES = {"encoder": "auto", "encoder_bert": "torch"}

# Tokens of a forward pass on a CPU: the engine's own default there, and the most that it profits from.
CPU_NUM_TOKENS = 512

POOLINGS = {"cls": "cls", "mean": "mean", "splade": "splade", "last-token": "last_token"}
DTYPES = {name: name for name in ("float16", "float32", "bfloat16")}
LOG_LEVELS = {"trace": "debug", "debug": "debug", "info": "info", "warn": "warning", "error": "error"}
# The gateway's default limit for all bodies that it holds at a time.
BODY_BYTES_MAX = 256 << 20
# Schemes of addresses, by source.
SCHEMES = {"S3": "s3", "GCS": "gs", "AZURE": "az"}

# More digits make no sense, and Python refuses to read thousands of them.
COUNT_DIGITS_MAX = 18


def to_boolean(text: str) -> str:
    return choose({"true": "true", "1": "true", "false": "false", "0": "false"})(text.lower())


def to_count(text: str) -> str:
    if not (text.isdecimal() and len(text) <= COUNT_DIGITS_MAX and int(text) > 0):
        raise ValueError(f"must be a whole number above 0, not {text}")
    return text


def to_body_bytes(text: str) -> str:
    if int(to_count(text)) > BODY_BYTES_MAX:
        raise ValueError(f"must be at most {BODY_BYTES_MAX}, not {text}")
    return text


def to_log_level(text: str) -> str:
    return choose(LOG_LEVELS)(text.lower())


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
    "HF_API_TOKEN": TeiVariable(("HF_TOKEN",)),
    "HF_TOKEN": TeiVariable(("HF_TOKEN",)),
    "JSON_OUTPUT": TeiVariable(
        ("HEDDLE_ENGINE_LOG_FORMAT", "HEDDLE_TOKENIZER_LOG_FORMAT", "HEDDLE_GATEWAY_LOG_FORMAT"), to_log_format
    ),
    "LOG_LEVEL": TeiVariable(("HEDDLE_SERVE_LOG_LEVEL",), to_log_level),
    "MAX_BATCH_REQUESTS": TeiVariable(("HEDDLE_ENGINE_BATCH_ITEMS_MAX",), to_count),
    "MAX_BATCH_TOKENS": TeiVariable(("HEDDLE_ENGINE_BATCH_TOKENS_MAX",), to_count),
    "MAX_CLIENT_BATCH_SIZE": TeiVariable(
        ("HEDDLE_GATEWAY_REQUEST_INPUTS_MAX", "HEDDLE_TOKENIZER_REQUEST_INPUTS_MAX"), to_count
    ),
    "MAX_CONCURRENT_REQUESTS": TeiVariable(("HEDDLE_GATEWAY_REQUESTS_MAX",), to_count),
    "PAYLOAD_LIMIT": TeiVariable(("HEDDLE_GATEWAY_REQUEST_BYTES_MAX",), to_body_bytes),
    "POOLING": TeiVariable(("HEDDLE_SERVE_POOLING",), choose(POOLINGS)),
    "SERVED_MODEL_NAME": TeiVariable(("HEDDLE_ENGINE_SERVED_MODEL_NAME", "HEDDLE_TOKENIZER_SERVED_MODEL_NAME")),
}

# The other variables of TEI, and those of Baseten's copy of it.
TEI_WITHOUT_EFFECT = {
    "DENSE_PATH": "modules.json names the Dense module",
    "DEVICE_ID": "HEDDLE_SERVE_DEVICE chooses the GPU",
    "DISABLE_SPANS": "Heddle sends no traces",
    "HOSTNAME": "the flag --host says where to listen",
    "HUGGINGFACE_HUB_CACHE": "the hub's cache is where HF_HOME in the environment of `heddle serve` says",
    "MODEL_ID": "trt_llm.build.checkpoint_repository names the model",
    "OTLP_ENDPOINT": "Heddle sends no traces",
    "OTLP_SERVICE_NAME": "Heddle sends no traces",
    "PORT": "the flag --http-port says where to listen",
    "PROMETHEUS_PORT": "metrics are at /metrics of the HTTP API",
    "RADIX_MLP_THRESHOLD": "Heddle does not reuse computed prefixes",
    "REVISION": "trt_llm.build.checkpoint_repository names the revision",
    "TASK": "POST / tells by the body whether a request is for /similarity",
    "TOKENIZATION_WORKERS": "the tokenizer takes all cores",
    "UDS_PATH": "`heddle serve` creates its own folder for sockets",
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
    for name, text in sorted(config.environment_variables.items()):  # HF_TOKEN comes after HF_API_TOKEN, the older name
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
    calibration = build.quantization_config
    cards = int((config.resources.accelerator or "").partition(":")[2] or 1)
    stated = {
        "HEDDLE_SERVE_MODEL": to_address(repository, folder),
        # main is the default, and a stated revision would hide the packaged model.
        "HEDDLE_SERVE_REVISION": repository.revision if repository.revision != "main" else None,
        "HEDDLE_SERVE_QUANTIZATION": build.quantization_type if build.quantization_type != "no_quant" else None,
        "HEDDLE_SERVE_ENGINES": str(min(cards, gpus)) if min(cards, gpus) > 1 else None,
        "HEDDLE_ENGINE_BATCH_TOKENS_MAX": str(tokens) if tokens else None,
        "HEDDLE_ENGINE_BATCH_ITEMS_MAX": str(build.max_batch_size) if build.max_batch_size else None,
        "HEDDLE_ENGINE_SERVED_MODEL_NAME": runtime.served_model_name,
        "HEDDLE_TOKENIZER_SERVED_MODEL_NAME": runtime.served_model_name,
        "HEDDLE_BUILD_BUILDER_GPUS": str(build.num_builder_gpus or ""),
        "HEDDLE_BUILD_CALIBRATION_SIZE": stated_count(calibration, "calib_size"),
        "HEDDLE_BUILD_CALIBRATION_TOKENS_MAX": stated_count(calibration, "calib_max_seq_length"),
        "HEDDLE_GATEWAY_DEFAULT_ROUTE": runtime.webserver_default_route,
    }
    return {name: value for name, value in stated.items() if value}


def stated_count(section: BaseModel, field: str) -> str:
    """Returns "" for a field that the file leaves out."""
    return str(getattr(section, field)) if field in section.model_fields_set else ""


def to_address(repository: CheckpointRepository, folder: Path) -> str:
    """Returns the value for `--model`. Truss also accepts buckets without a scheme."""
    if repository.source == "LOCAL":
        return str(folder / Path(repository.repo).expanduser())
    scheme = SCHEMES.get(repository.source)
    return f"{scheme}://{repository.repo}" if scheme and "://" not in repository.repo else repository.repo
