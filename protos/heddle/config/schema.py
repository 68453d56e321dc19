"""The fields of a Truss `config.yaml`, with the types, ranges and defaults of Truss and BEI.

The text below each field is its description in the JSON schema. A field that is marked with `NoEffect` is accepted,
because it makes sense on Baseten, and reported as a field that does nothing here. A field that Truss has and this file
does not is accepted in the same way.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from heddle.quantization import Quantization


@dataclass(frozen=True, slots=True)
class NoEffect:
    reason: str

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), "description": f"Has no effect on Heddle: {self.reason}."}


# Names of Baseten's cards, and their compute capabilities.
ACCELERATORS = {
    "T4": (7, 5),
    "V100": (7, 0),
    "A10G": (8, 6),
    "A100": (8, 0),
    "A100_40GB": (8, 0),
    "L4": (8, 9),
    "L40S": (8, 9),
    "H100": (9, 0),
    "H100_40GB": (9, 0),
    "H200": (9, 0),
    "B200": (10, 0),
    "B300": (10, 3),
    "GB300": (10, 3),
    "RTX_PRO_6000": (12, 0),
}

ACCELERATOR_PATTERN = rf"^({'|'.join(ACCELERATORS)})(:[1-9][0-9]{{0,3}})?$"

# What `max_num_tokens` is if the file does not say.
NUM_TOKENS = {"encoder": 16_384, "encoder_bert": 8_192}

CONTAINER = NoEffect("Heddle builds no container")
GENERATION = NoEffect("it is for models that generate text")
NO_ENGINE = NoEffect("Heddle compiles no TensorRT engine, and has none of its plugins")
NO_DATA_SET = NoEffect("no data set is downloaded: calibration takes Heddle's own texts or --calibration-texts")
ONE_GPU = NoEffect("each engine holds the whole model on one GPU")
MODEL_CODE = NoEffect("there is no model code in Python to run")
UNUSED = NoEffect("Heddle does not use it")

ContainerField = Annotated[Any, CONTAINER]
GenerationField = Annotated[Any, GENERATION]
ModelCodeField = Annotated[Any, MODEL_CODE]
UnusedField = Annotated[Any, UNUSED]

CalibrationCount = Annotated[int, Field(ge=64, le=16_384, multiple_of=64)]
ParallelCount = Annotated[int, Field(ge=1), ONE_GPU]


def check_accelerator(stated: str) -> str:
    if not re.fullmatch(ACCELERATOR_PATTERN, stated):
        raise ValueError(f"must be one of {', '.join(ACCELERATORS)}, with :N for several, not {stated}")
    return stated


def to_text(value: object) -> object:
    """YAML reads `true` and `8192` as a boolean and a number, but an environment variable is text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


VariableText = Annotated[str, BeforeValidator(to_text, json_schema_input_type=str | bool | float)]
AcceleratorText = Annotated[
    str,
    AfterValidator(check_accelerator),
    Field(json_schema_extra={"pattern": ACCELERATOR_PATTERN, "examples": [*ACCELERATORS]}),
]


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=(), use_attribute_docstrings=True)


class CheckpointRepository(Section):
    """Where the model's files come from."""

    source: Literal["HF", "LOCAL", "GCS", "S3", "AZURE", "REMOTE_URL", "BASETEN_TRAINING"] = "HF"
    """HF is the Hugging Face hub, LOCAL a folder on this machine; S3, GCS and AZURE are buckets, REMOTE_URL is an
    archive or a folder on a web server. BASETEN_TRAINING is only on Baseten."""

    repo: Annotated[str, Field(min_length=1)]
    """HF: owner/name. LOCAL: the path of the folder, relative to this file. S3: s3://bucket/path. GCS: gs://bucket/path.
    AZURE: azure://account/container/path. REMOTE_URL: https://host/model.tar.gz."""

    revision: str | None = None
    """Branch, tag or commit on the hub; main if unset."""

    runtime_secret_name: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")] = "hf_access_token"
    """Name of the secret that opens the source: a token for HF and REMOTE_URL, JSON for buckets. It is read from the
    variable TRUSS_SECRET_<name> or the file /secrets/<name>, unless the environment has credentials already (HF_TOKEN,
    AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY). Only HF uses the default."""


class QuantizationConfiguration(Section):
    """How scales are calibrated, for the formats that need it: fp8_kv, fp4*, smooth_quant."""

    calib_size: CalibrationCount = 1024
    """Number of texts."""

    calib_dataset: Annotated[str, NO_DATA_SET] = "abisee/cnn_dailymail"
    """Has no effect: calibration takes Heddle's own texts, or the lines of the file that `heddle build` is given as
    --calibration-texts and `heddle serve` as HEDDLE_BUILD_CALIBRATION_TEXTS."""

    calib_max_seq_length: CalibrationCount = 1536
    """Maximum number of tokens in a text; longer texts are cut."""


def describe_aliases(schema: dict[str, Any]) -> None:
    """Adds the second name of a field: pydantic describes only the first."""
    properties = schema["properties"]
    properties["quantization_configuration"] = properties["quantization_config"]


class Build(Section):
    """The model, and how the engine holds it."""

    model_config = ConfigDict(json_schema_extra=describe_aliases)

    base_model: Literal["encoder", "encoder_bert"]
    """encoder: TensorRT-LLM where it can run and serves the model, else torch. encoder_bert: torch, unquantized."""

    checkpoint_repository: CheckpointRepository
    """Where the model's files come from."""

    max_num_tokens: Annotated[int | None, Field(ge=64, le=131_072, multiple_of=64)] = None
    """Most tokens of one forward pass on a GPU: 16384 for encoder and 8192 for encoder_bert if unset. On a CPU a pass
    has at most 512, where more are hardly cheaper by token."""

    max_batch_size: Annotated[int | None, Field(ge=1, le=2048)] = None
    """Most sequences of one forward pass; Heddle's own default if unset."""

    max_seq_len: Annotated[
        int | None, Field(ge=1, le=1_048_576), NoEffect("the model's own files say how long a text may be")
    ] = None

    quantization_type: Literal[Quantization, "weights_kv_int8", "weights_int4", "weights_int4_kv_int8"] = "no_quant"
    """Format of the weights, for decoders under `base_model: encoder`; encoder_bert takes no_quant only.
    weights_kv_int8, weights_int4 and weights_int4_kv_int8 are not supported."""

    quantization_config: Annotated[
        QuantizationConfiguration,
        Field(validation_alias=AliasChoices("quantization_config", "quantization_configuration")),
    ] = QuantizationConfiguration()

    num_builder_gpus: Annotated[int | None, Field(ge=1)] = None
    """Number of GPUs that calibrate and quantize the model in parallel; if unset, the CPU does."""

    plugin_configuration: Annotated[dict[str, Any], NO_ENGINE] = {}
    skip_build_result: Annotated[bool, NO_ENGINE] = False
    strongly_typed: Annotated[bool, NO_ENGINE] = False
    gather_all_token_logits: Annotated[bool, GENERATION] = False
    max_beam_width: Annotated[Literal[1], GENERATION] = 1
    max_prompt_embedding_table_size: Annotated[int, GENERATION] = 0
    tensor_parallel_count: ParallelCount = 1
    pipeline_parallel_count: ParallelCount = 1
    sequence_parallel_count: ParallelCount = 1
    moe_expert_parallel_option: GenerationField = None
    speculator: GenerationField = None
    lora_adapters: GenerationField = None
    lora_configuration: GenerationField = None


class Runtime(Section):
    """How the deployment answers."""

    webserver_default_route: Literal["/v1/embeddings", "/rerank", "/predict", "/predict_tokens"] | None = None
    """Route that answers POST / and Baseten's predict paths; if unset, the model decides."""

    served_model_name: str | None = None
    """Name of the model in answers; `model_name` if unset."""

    kv_cache_free_gpu_mem_fraction: Annotated[float, Field(gt=0, le=1), GENERATION] = 0.9
    kv_cache_host_memory_bytes: Annotated[int | None, Field(ge=1), GENERATION] = None
    enable_chunked_context: Annotated[bool, GENERATION] = True
    batch_scheduler_policy: Annotated[Literal["max_utilization", "guaranteed_no_evict"], GENERATION] = (
        "guaranteed_no_evict"
    )
    request_default_max_tokens: Annotated[int | None, Field(ge=1), GENERATION] = None
    total_token_limit: Annotated[int, GENERATION] = 500_000


class TrtLlm(Section):
    """The engine and its model. BEI always has the inference stack v1."""

    inference_stack: Literal["v1"] = "v1"
    build: Build
    runtime: Runtime = Runtime()
    version_overrides: Annotated[dict[str, Any], NoEffect("the version is that of the installed Heddle")] = {}


class Resources(Section):
    """The machine that Baseten is asked for."""

    accelerator: AcceleratorText | None = None
    """Card, and how many: H100, or L4:2 for two engines where this machine has as many GPUs."""

    cpu: ContainerField = None
    memory: ContainerField = None
    use_gpu: ContainerField = None
    node_count: ContainerField = None


class TrussConfig(Section):
    """A Truss `config.yaml` for BEI or BEI-Bert, as `heddle serve config.yaml` reads it."""

    model_name: str | None = None
    """Name of the model in answers and lists."""

    trt_llm: TrtLlm
    """The engine and its model."""

    environment_variables: dict[str, VariableText] = {}
    """Settings of Heddle (HEDDLE_SERVE_*, HEDDLE_BUILD_*, HEDDLE_ENGINE_*, HEDDLE_TOKENIZER_*, HEDDLE_GATEWAY_*) and of
    TEI, such as AUTO_TRUNCATE, POOLING, DTYPE and DEFAULT_PROMPT. Other names have no effect."""

    secrets: dict[str, str | None] = {}
    """Names of secrets. Values in this file are never read."""

    resources: Resources = Resources()
    """The machine that Baseten is asked for."""

    base_image: ContainerField = None
    build: ContainerField = None
    build_commands: ContainerField = None
    cache_internal: ContainerField = None
    docker_server: ContainerField = None
    model_cache: ContainerField = None
    python_version: ContainerField = None
    requirements: ContainerField = None
    requirements_file: ContainerField = None
    system_packages: ContainerField = None
    weights: ContainerField = None

    apply_library_patches: ModelCodeField = None
    bundled_packages_dir: ModelCodeField = None
    data_dir: ModelCodeField = None
    external_data: ModelCodeField = None
    external_package_dirs: ModelCodeField = None
    live_reload: ModelCodeField = None
    model_class_filename: ModelCodeField = None
    model_class_name: ModelCodeField = None
    model_module_dir: ModelCodeField = None
    runtime: ModelCodeField = None

    description: UnusedField = None
    examples_filename: UnusedField = None
    input_type: UnusedField = None
    model_framework: UnusedField = None
    model_metadata: UnusedField = None
    model_type: UnusedField = None
    spec_version: UnusedField = None
