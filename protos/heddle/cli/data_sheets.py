"""Estimates speed and memory of an engine pod from a GPU's data sheet and a model's config.json. Called by `plan`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heddle.checkpoint.checkpoint import HIDDEN_SIZES
from heddle.cli.capacity import Amount, EnginePod

BYTES_PER_NUMBER = 2  # bfloat16

LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
HEADS = ("num_attention_heads", "n_heads", "n_head")
INTERMEDIATE = ("intermediate_size", "hidden_dim", "n_inner")
# Models whose feed-forward layers have three matrices instead of two.
GATED = ("llama", "llama_bidirec", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
GATED_ENCODERS = ("modernbert", "new", "gte")
GATED_ACTIVATIONS = ("swiglu", "geglu")


@dataclass(frozen=True, slots=True)
class Gpu:
    tera_flops: float  # dense, in bfloat16, or float16 on GPUs without bfloat16
    terabytes_per_s: float
    gigabytes: float


# From NVIDIA's data sheets.
GPUS = {
    "T4": Gpu(65, 0.32, 16),
    "V100": Gpu(125, 0.9, 16),
    "A10": Gpu(125, 0.6, 24),
    "A10G": Gpu(70, 0.6, 24),
    "A100-40GB": Gpu(312, 1.555, 40),
    "A100-80GB": Gpu(312, 2.039, 80),
    "L4": Gpu(121, 0.3, 24),
    "L40S": Gpu(362, 0.864, 48),
    "RTX-4090": Gpu(165, 1.008, 24),
    "H100-PCIe": Gpu(756, 2.0, 80),
    "H100-NVL": Gpu(835, 3.9, 94),
    "H100-SXM": Gpu(989, 3.35, 80),
    "H200": Gpu(989, 4.8, 141),
    "B200": Gpu(2250, 8.0, 180),
}


@dataclass(frozen=True, slots=True)
class ModelShape:
    layers: int
    hidden: int
    attention: int  # num_attention_heads * head_dim
    key_value: int  # num_key_value_heads * head_dim
    intermediate: int
    gated: bool
    vocabulary: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "ModelShape":
        """Raises ValueError that names a missing field."""
        hidden, heads = read_required(config, HIDDEN_SIZES), read_required(config, HEADS)
        head = read_first(config, ("head_dim",)) or hidden // heads
        activation = config.get("feed_forward_type") or config.get(
            "activation_function"
        )  # in configurations of Jina and Nomic
        return cls(
            layers=read_required(config, LAYERS),
            hidden=hidden,
            attention=heads * head,
            key_value=(read_first(config, ("num_key_value_heads",)) or heads) * head,
            intermediate=read_first(config, INTERMEDIATE) or 4 * hidden,
            gated=config.get("model_type") in (*GATED, *GATED_ENCODERS) or activation in GATED_ACTIVATIONS,
            vocabulary=read_required(config, ("vocab_size",)),
        )

    @property
    def layer_weights(self) -> int:
        """Weights that a token is multiplied with. This excludes embeddings, which are looked up."""
        attention = self.hidden * (2 * self.attention + 2 * self.key_value)
        return self.layers * (attention + (3 if self.gated else 2) * self.hidden * self.intermediate)

    def flops_per_token(self, tokens: Amount) -> float:
        """One multiplication and one addition per weight, and per attended token for its key and for its value."""
        attended = tokens.mean_square / tokens.mean  # most tokens are in long inputs
        return 2 * self.layer_weights + 4 * self.layers * self.attention * attended

    def memory_bytes(self, batch_tokens: int) -> float:
        """Memory of the weights, and of the activations of one layer for a full batch."""
        widths = 4 * self.hidden + self.attention + 2 * self.key_value + (2 if self.gated else 1) * self.intermediate
        weights = self.layer_weights + self.vocabulary * self.hidden
        return BYTES_PER_NUMBER * (weights + batch_tokens * widths)


def estimate_engine_pod(
    gpu: Gpu,
    shape: ModelShape,
    tokens: Amount,
    *,
    efficiency: float,
    launch_s_per_layer: float,
    limits: tuple[int, int],
) -> EnginePod:
    """`limits` are those of a batch: tokens and inputs. Reading weights and computing overlap in part. Counting both in
    full is on the safe side."""
    reading_s = BYTES_PER_NUMBER * shape.layer_weights / (gpu.terabytes_per_s * 1e12)
    per_token_s = shape.flops_per_token(tokens) / (efficiency * gpu.tera_flops * 1e12)
    return EnginePod(reading_s + launch_s_per_layer * shape.layers, per_token_s, *limits)


def read_required(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    value = read_first(config, names)
    if value is None:
        raise ValueError(f"config.json has none of {', '.join(names)}")
    return value


def read_first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    values = (config.get(name) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), None)
