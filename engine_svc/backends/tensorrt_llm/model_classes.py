"""The model class that we register with TensorRT-LLM: its own decoder, but it returns the hidden states of all tokens.

Pooling and heads are those of the torch backend, so both backends support the same options of a sequence.
"""

import importlib
from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import Tensor

from engine_svc.backends.tensorrt_llm.engine_folder import ARCHITECTURE
from engine_svc.backends.tensorrt_llm.versions import Api

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
QWEN3_OF_GENERATE = ("modeling_qwen3", "Qwen3ForCausalLM")

# TensorRT-LLM 1.4 moved it to the first.
MODULES_OF_MASKS = (
    "tensorrt_llm._torch.attention.backends.interface",
    "tensorrt_llm._torch.attention_backend.interface",
)


def register_class(model_type: str, api: Api, *, is_causal: bool) -> None:
    """Registers the class under the name ARCHITECTURE, for the models that are built from now on."""
    module, name = QWEN3_OF_GENERATE if (model_type, api) == ("qwen3", Api.GENERATE) else BASES[model_type]
    base = getattr(importlib.import_module(f"{MODELS}.{module}"), name)
    masks = mask_type()
    mask = masks.CAUSAL if is_causal else masks.FULL
    register = importlib.import_module(f"{MODELS}.modeling_utils").register_auto_model
    register(ARCHITECTURE)(hidden_states_class(base, mask, by_sequence=api is Api.GENERATE))


def mask_type() -> Any:
    for name in MODULES_OF_MASKS:
        try:
            return importlib.import_module(name).PredefinedAttentionMask
        except ModuleNotFoundError as error:
            missing = error
    raise missing


def hidden_states_class(base: Any, mask: Any, *, by_sequence: bool) -> type:
    """A subclass whose layers all use `mask`. It returns [tokens, hidden] or, `by_sequence`, a nested tensor with one
    [tokens, hidden] per sequence."""

    class HiddenStates(base):  # type: ignore[misc]
        def __init__(self, model_config: Any) -> None:
            super().__init__(model_config)
            for layer in self.model.layers:
                layer.self_attn.register_forward_pre_hook(attention_mask_hook(mask), with_kwargs=True)

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
            # Its executor takes an item of the first dimension for each request.
            return torch.nested.nested_tensor(list(torch.split(hidden, attn_metadata.seq_lens.tolist())))

    return HiddenStates


def attention_mask_hook(mask: Any) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """Replaces the mask that a layer passes. By default Llama's layers are bidirectional in every model that does not
    generate, and those of Mistral and Qwen are always causal."""

    def with_mask(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "attention_mask": mask}

    return with_mask


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
