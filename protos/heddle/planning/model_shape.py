"""A model's shape from its config.json, under the names that architectures give its parts. Called by heddle.plan."""

from collections.abc import Mapping
from typing import Any

from heddle.planning.engine import ModelShape

LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
HIDDEN = ("hidden_size", "dim", "d_model", "n_embd")
HEADS = ("num_attention_heads", "n_heads", "n_head")
INTERMEDIATE = ("intermediate_size", "hidden_dim", "n_inner")

# Whose feed-forward part has a gate beside its two matrices.
GATED = frozenset(
    {
        *("llama", "llama_bidirec", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
        *("modernbert", "new", "gte"),
    }
)
GATED_ACTIVATIONS = frozenset({"swiglu", "geglu"})


def model_shape(config: Mapping[str, Any]) -> ModelShape:
    """Raises ValueError that names what is missing."""
    hidden = number(config, HIDDEN)
    heads = number(config, HEADS)
    head = stated(config, ("head_dim",)) or hidden // heads
    return ModelShape(
        layers=number(config, LAYERS),
        hidden=hidden,
        attention=heads * head,
        key_value=(stated(config, ("num_key_value_heads",)) or heads) * head,
        intermediate=stated(config, INTERMEDIATE) or 4 * hidden,
        gated=is_gated(config),
    )


def is_gated(config: Mapping[str, Any]) -> bool:
    activation = config.get("feed_forward_type") or config.get("activation_function")  # Jina's, Nomic's
    return config.get("model_type") in GATED or activation in GATED_ACTIVATIONS


def number(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    value = stated(config, names)
    if value is None:
        raise ValueError(f"config.json has none of {', '.join(names)}")
    return value


def stated(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    values = (config.get(name) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), None)
