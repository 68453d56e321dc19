"""The parts of TensorRT-LLM that we call, copied from its source. The fakes are built from these records, and `drift`
compares a package with them.

Signatures are in Python's syntax, without `self`. The package itself has not been run.
"""

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine_svc.backends.tensorrt_llm.support import Api

REPOSITORY = "github.com/NVIDIA/TensorRT-LLM"


@dataclass(frozen=True, slots=True)
class Callee:
    """A function, or a method, in the first of the files that is there."""

    files: tuple[str, ...]
    name: str  # Class.method, or a function
    parameters: str
    passed: tuple[str, ...]  # by us, or by its own code where we change what it passes
    source: str

    def signature(self) -> inspect.Signature:
        return inspect.Signature(list(parse_parameters(self.parameters)))


@dataclass(frozen=True, slots=True)
class Members:
    """Fields, attributes, properties or methods of a class that we read, set or call."""

    files: tuple[str, ...]
    name: str
    members: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Text:
    """A string that its code compares with, somewhere below a folder or in a file."""

    place: str
    text: str
    source: str


Record = Callee | Members | Text

REQUIRED = inspect.Parameter.empty


def parse_arguments(parameters: str) -> ast.arguments:
    function = ast.parse(f"def function({parameters}): ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    return function.args


def parse_parameters(parameters: str) -> Iterator[inspect.Parameter]:
    arguments = parse_arguments(parameters)
    for name, default in read_defaults(arguments).items():
        value = REQUIRED if default is None else parse_value(default)
        yield inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value)
    if arguments.kwarg is not None:
        yield inspect.Parameter(arguments.kwarg.arg, inspect.Parameter.VAR_KEYWORD)


def parse_value(default: str) -> Any:
    try:
        return ast.literal_eval(default)
    except ValueError:
        return default  # a name of theirs


def read_defaults(arguments: ast.arguments) -> dict[str, str | None]:
    """The source text of each parameter's default, None if it has none; `self` is left out."""
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    found = dict(zip(positional, defaults, strict=True))
    found |= {
        argument.arg: default for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
    return {
        name: None if default is None else ast.unparse(default)
        for name, default in found.items()
        if name not in ("self", "cls")
    }


LLM = ("tensorrt_llm/llmapi/llm.py",)
ARGUMENTS = ("tensorrt_llm/llmapi/llm_args.py",)
RESULT = ("tensorrt_llm/executor/result.py",)
MODELS = "tensorrt_llm/_torch/models"
# Moved in 1.4.
ATTENTION = ("tensorrt_llm/_torch/attention/attention.py", "tensorrt_llm/_torch/modules/attention.py")
MASKS = (
    "tensorrt_llm/_torch/attention/backends/interface.py",
    "tensorrt_llm/_torch/attention_backend/interface.py",
)

# Further keyword arguments of the constructor.
FIELDS = (
    *("model", "tokenizer", "tokenizer_mode", "skip_tokenizer_init", "trust_remote_code", "tensor_parallel_size"),
    *("dtype", "revision", "tokenizer_revision", "pipeline_parallel_size", "context_parallel_size", "gpus_per_node"),
    *("moe_cluster_parallel_size", "moe_tensor_parallel_size", "moe_expert_parallel_size", "enable_attention_dp"),
    *("cp_config", "enable_lora", "lora_config", "batched_logits_processor", "guided_decoding_backend"),
    *("speculative_config", "max_batch_size", "max_input_len", "max_seq_len", "max_beam_width", "max_num_tokens"),
    *("load_format", "enable_chunked_prefill", "kv_cache_config", "stream_interval", "iter_stats_max_iterations"),
    *("peft_cache_config", "scheduler_config", "cache_transceiver_config", "batching_type", "cuda_graph_config"),
    *("gather_generation_logits", "num_postprocess_workers", "reasoning_parser", "backend", "checkpoint_format"),
    *("disable_overlap_scheduler", "moe_config", "attn_backend", "print_iter_log", "torch_compile_config"),
    *("enable_autotuner", "allreduce_strategy"),
)

USED_FIELDS = (
    *("model", "skip_tokenizer_init", "attn_backend", "max_batch_size", "max_num_tokens", "max_seq_len"),
    "cuda_graph_config",
)

MODEL_FORWARD = "attn_metadata, input_ids=None, position_ids=None, inputs_embeds=None, **kwargs"
PASSED_FORWARD = ("attn_metadata", "input_ids", "position_ids", "inputs_embeds")


def decoder(module: str, family: str, model: str, source: str, layer: str = "") -> tuple[Record, ...]:
    """A class that we derive from, the decoder inside it, and the layers whose attention we set."""
    files = (f"{MODELS}/{module}.py",)
    cited = f"{REPOSITORY} {files[0]}, {source}"
    return (
        Callee(files, f"{family}.__init__", "model_config", ("model_config",), cited),
        Callee(files, f"{model}.forward", MODEL_FORWARD, PASSED_FORWARD, cited),
        Members(files, model, ("layers",), cited),
        Members(files, layer or model.replace("Model", "DecoderLayer"), ("self_attn",), cited),
    )


COMMON: tuple[Record, ...] = (
    Callee(
        LLM,
        "BaseLLM.__init__",
        "model, tokenizer=None, tokenizer_mode='auto', skip_tokenizer_init=False, trust_remote_code=False, "
        "tensor_parallel_size=1, dtype='auto', revision=None, tokenizer_revision=None, **kwargs",
        ("model", "skip_tokenizer_init"),
        f"{REPOSITORY} tests/unittest/api_stability/references_committed/llm.yaml at 029c15c; nvidia.github.io/"
        "TensorRT-LLM/{1.1.0rc2.post1,1.3.0rc24,1.4.0rc4}/llm-api/reference",
    ),
    Callee(
        LLM, "BaseLLM.shutdown", "", (), f"{REPOSITORY} tests/unittest/api_stability/references/llm.yaml at 000a01d"
    ),
    Callee(
        (f"{MODELS}/modeling_utils.py",),
        "register_auto_model",
        "name",
        ("name",),
        f"{REPOSITORY} {MODELS}/modeling_utils.py at 000a01d (1.0.0rc4)",
    ),
    Callee(
        (f"{MODELS}/modeling_utils.py",),
        "DecoderModelForCausalLM.load_weights",
        "weights, weight_mapper=None, skip_modules=[]",
        ("weights", "weight_mapper"),
        f"{REPOSITORY} {MODELS}/modeling_utils.py at 000a01d (1.0.0rc4)",
    ),
    Callee(
        ATTENTION,
        "Attention.forward",
        "position_ids, hidden_states, attn_metadata, attention_mask=PredefinedAttentionMask.CAUSAL, "
        "all_reduce_params=None, lora_params=None, attention_window_size=None, **kwargs",
        ("position_ids", "hidden_states", "attn_metadata", "attention_mask"),
        f"{REPOSITORY} tensorrt_llm/_torch/modules/attention.py, main of 2025 with attention_sinks",
    ),
    Members(
        MASKS,
        "PredefinedAttentionMask",
        ("CAUSAL", "FULL"),
        f"{REPOSITORY} {MODELS}/modeling_llama.py, main of 2025; _torch/attention/backends in 2026",
    ),
    Text(
        "tensorrt_llm/_torch/model_config.py",
        "LlamaForTextEmbedding",
        f"{REPOSITORY} tensorrt_llm/_torch/model_config.py, is_generation_model, of 1.2",
    ),
    *decoder("modeling_llama", "LlamaForCausalLM", "LlamaModel", "main of August 2025"),
    *decoder("modeling_mistral", "MistralForCausalLM", "MistralModel", "at 002f3cc"),
    *decoder("modeling_qwen", "Qwen2ForCausalLM", "QwenModel", "at 047098b"),
)

ENCODE: tuple[Record, ...] = (
    *COMMON,
    Callee(
        LLM,
        "BaseLLM.encode",
        "inputs, add_special_tokens=True, batch_indexed_model_output=True, copy_logits_to_host=True, "
        "return_raw_logits=False, **model_kwargs",
        ("inputs", "batch_indexed_model_output", "copy_logits_to_host", "return_raw_logits"),
        f"{REPOSITORY} tensorrt_llm/llmapi/llm.py between 1.3.0rc20 and 1.3.0rc22; pull request 12801; "
        "tests/unittest/llmapi/test_llm_encode.py at 05de787",
    ),
    Members(
        ARGUMENTS,
        "TorchLlmArgs",
        (*USED_FIELDS, "encode_only"),
        f"{REPOSITORY} tests/unittest/llmapi/test_llm_encode.py at 05de787",
    ),
    *decoder("modeling_qwen3", "Qwen3ForTextEmbedding", "Qwen3Model", "at 712d98c; _arch_index.py at 065ff9e"),
    Text("tensorrt_llm/usage", "TRTLLM_NO_USAGE_STATS", f"{REPOSITORY} tensorrt_llm/usage/usage_lib.py, 1.3"),
)

GENERATE: tuple[Record, ...] = (
    *COMMON,
    Callee(
        LLM,
        "BaseLLM.generate_async",
        "inputs, sampling_params=None, lora_request=None, prompt_adapter_request=None, streaming=False, "
        "kv_cache_retention_config=None, disaggregated_params=None",
        ("inputs", "sampling_params"),
        f"{REPOSITORY} tests/unittest/api_stability/references_committed/llm.yaml at 029c15c",
    ),
    Callee(
        RESULT,
        "GenerationResult.result",
        "timeout=None",
        (),
        f"{REPOSITORY} tensorrt_llm/executor/result.py at 005bc84",
    ),
    Callee(RESULT, "GenerationResult.abort", "", (), f"{REPOSITORY} tensorrt_llm/executor/result.py at 005bc84"),
    Members(RESULT, "GenerationResult", ("finished",), f"{REPOSITORY} tensorrt_llm/executor/result.py at 005bc84"),
    Members(
        RESULT, "GenerationResultBase", ("context_logits",), f"{REPOSITORY} tensorrt_llm/executor/result.py at 005bc84"
    ),
    Members(
        ("tensorrt_llm/sampling_params.py",),
        "SamplingParams",
        ("max_tokens", "end_id", "pad_id", "return_context_logits"),
        f"{REPOSITORY} tests/unittest/api_stability/references_committed/sampling_params.yaml at 020a739",
    ),
    Members(
        ARGUMENTS,
        "TorchLlmArgs",
        (*USED_FIELDS, "disable_overlap_scheduler", "kv_cache_config"),
        f"{REPOSITORY} tests/unittest/api_stability/references/llm.yaml at 000a01d",
    ),
    Members(ARGUMENTS, "KvCacheConfig", ("enable_block_reuse",), f"{REPOSITORY} tensorrt_llm/llmapi/llm_args.py, 1.2"),
    Text(
        "tensorrt_llm/llmapi",
        "TLLM_WORKER_USE_SINGLE_PROCESS",
        f"{REPOSITORY} tensorrt_llm/llmapi/utils.py, enable_worker_single_process_for_tp1",
    ),
    *decoder("modeling_qwen3", "Qwen3ForCausalLM", "Qwen3Model", "at 010bb95"),
)

CONTRACT: Mapping[Api, tuple[Record, ...]] = {Api.ENCODE: ENCODE, Api.GENERATE: GENERATE}


def find_signature(api: Api, name: str) -> inspect.Signature:
    return next(record for record in CONTRACT[api] if isinstance(record, Callee) and record.name == name).signature()


def recorded_members(api: Api, name: str) -> frozenset[str]:
    return frozenset(
        next(record for record in CONTRACT[api] if isinstance(record, Members) and record.name == name).members
    )


def bind_call(api: Api, name: str, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
    """Raises TypeError as a call of the recorded signature would."""
    arguments = find_signature(api, name).bind(*args, **kwargs)
    arguments.apply_defaults()
    return arguments.arguments
