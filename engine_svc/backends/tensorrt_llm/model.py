"""What TensorRT-LLM loads: a folder with our own config.json and links to the weights, and a model class of ours. The
class has TensorRT-LLM's own decoder, but returns the hidden states of all tokens. Pooling and heads are those of the
torch backend, so that both backends support the same options.
"""

import importlib
import json
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine_svc.backends.tensorrt_llm.support import MODEL_TYPES, Api, read_supported_quantization
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.quantization import FILE, StoredQuantization
from engine_svc.models.rotary import rope_parameters
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.weight_files import find_weight_files

# TensorRT-LLM lists this name among the architectures that do not generate, and has no class of that name. A class that
# we register under it runs without a KV cache.
ARCHITECTURE = "LlamaForTextEmbedding"

# TensorRT-LLM does not need these, or only some versions can read them.
OMITTED_FIELDS = frozenset({"auto_map", "dtype", "layer_types", "quantization_config", "rope_parameters"})

MODELS = "tensorrt_llm._torch.models"
PREFIX = "model."

# Module and class, by model_type.
BASES = {
    "llama": ("modeling_llama", "LlamaForCausalLM"),
    "mistral": ("modeling_mistral", "MistralForCausalLM"),
    "qwen2": ("modeling_qwen", "Qwen2ForCausalLM"),
    "qwen3": ("modeling_qwen3", "Qwen3ForTextEmbedding"),
}
# TensorRT-LLM 1.2 has no Qwen3ForTextEmbedding.
QWEN3_BASE_OF_GENERATE = ("modeling_qwen3", "Qwen3ForCausalLM")

# TensorRT-LLM's names of quantization algorithms where they differ from ModelOpt's, which it reads only in lower case.
TENSORRT_LLM_NAMES = {"FP8_PB_WO": "FP8_BLOCK_SCALES"}

# TensorRT-LLM 1.4 moved the masks to the first.
MASK_MODULES = (
    "tensorrt_llm._torch.attention.backends.interface",
    "tensorrt_llm._torch.attention_backend.interface",
)


def write_model_folder(folder: Path, checkpoint: Checkpoint, data_type: str) -> None:
    """`data_type` is bfloat16 or float16. Raises CheckpointError."""
    (folder / "config.json").write_text(json.dumps(make_config(checkpoint, data_type)))
    quantization = read_supported_quantization(checkpoint)
    if quantization is not None:
        (folder / FILE).write_text(json.dumps(make_quantization_config(quantization)))
    for path in find_weight_files(checkpoint.folder):
        (folder / path.name).symlink_to(path.resolve())


def make_config(checkpoint: Checkpoint, data_type: str) -> Mapping[str, Any]:
    """Names our class, and replaces what some versions of TensorRT-LLM cannot read: the model type of a checkpoint with
    code of its own, the notation of transformers 5, and a missing language model head."""
    config = ModelConfig.of(checkpoint)
    parameters = dict(rope_parameters(config))
    base = parameters.pop("rope_theta")
    scaling = {**parameters, "rope_type": parameters.get("rope_type") or parameters.get("type")}
    return {
        **{name: value for name, value in config.values.items() if name not in OMITTED_FIELDS},
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPES[config.get("model_type")],
        "torch_dtype": data_type,
        "rope_theta": base,
        "rope_scaling": None if scaling["rope_type"] in (None, "default") else scaling,
        # check_support refuses checkpoints with sequences longer than a window.
        "sliding_window": None,
        "use_sliding_window": False,
        # The language model head is not used; tied, it needs no weights.
        "tie_word_embeddings": True,
    }


def make_quantization_config(stored: StoredQuantization) -> Mapping[str, Any]:
    """An hf_quant_config.json that every version of TensorRT-LLM reads."""
    quantization = {
        **stored.stated,
        "quant_algo": TENSORRT_LLM_NAMES.get(stored.algorithm, stored.algorithm),
        "kv_cache_quant_algo": None,  # there is no KV cache
    }
    return {**stored.content, "quantization": quantization}


def register_class(model_type: str, api: Api, *, is_causal: bool) -> None:
    """Registers our class under the name ARCHITECTURE, for the models that are built from now on."""
    module, name = QWEN3_BASE_OF_GENERATE if (model_type, api) == ("qwen3", Api.GENERATE) else BASES[model_type]
    base = getattr(importlib.import_module(f"{MODELS}.{module}"), name)
    masks = import_masks()
    mask = masks.CAUSAL if is_causal else masks.FULL
    register = importlib.import_module(f"{MODELS}.modeling_utils").register_auto_model
    register(ARCHITECTURE)(make_class(base, mask, by_sequence=api is Api.GENERATE))


def import_masks() -> Any:
    for name in MASK_MODULES:
        try:
            return importlib.import_module(name).PredefinedAttentionMask
        except ModuleNotFoundError as error:
            missing = error
    raise missing


def make_class(base: Any, mask: Any, *, by_sequence: bool) -> type:
    """A subclass whose layers all use `mask`. It returns [tokens, hidden] or, with `by_sequence`, a nested tensor of
    one [tokens, hidden] per sequence."""

    class HiddenStates(base):  # type: ignore[misc]
        def __init__(self, model_config: Any) -> None:
            super().__init__(model_config)
            for layer in self.model.layers:
                layer.self_attn.register_forward_pre_hook(make_mask_hook(mask), with_kwargs=True)

        def load_weights(self, weights: MutableMapping[str, Tensor], *args: Any, **kwargs: Any) -> None:
            add_prefix(weights)
            super().load_weights(weights, *args, **kwargs)

        def forward(
            self,
            attn_metadata: Any,
            input_ids: Tensor | None = None,
            position_ids: Tensor | None = None,
            inputs_embeds: Tensor | None = None,
            **kwargs: Any,
        ) -> Tensor:
            hidden: Tensor = self.model(
                attn_metadata=attn_metadata,
                input_ids=input_ids,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
            )
            if not by_sequence:
                return hidden
            # The executor takes an item of the first dimension for each request.
            return torch.nested.nested_tensor(list(torch.split(hidden, attn_metadata.seq_lens.tolist())))

    return HiddenStates


def make_mask_hook(mask: Any) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """Replaces the mask that a layer passes on. By default Llama's layers are bidirectional in every model that does
    not generate, and those of Mistral and Qwen are always causal."""

    def set_mask(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "attention_mask": mask}

    return set_mask


def add_prefix(weights: MutableMapping[str, Tensor]) -> None:
    """Adds "model." to the names of a checkpoint that was saved from the bare model. Changes the mapping in place, so
    that it frees the tensors that TensorRT-LLM has copied."""
    names = list(weights.keys())
    if any(name.startswith(PREFIX) for name in names):
        return
    for name in names:
        tensor = weights[name]
        del weights[name]
        weights[PREFIX + name] = tensor
