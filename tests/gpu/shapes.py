"""The models whose speed is measured, as configurations without weights, and the amount of work they are.

Work is counted as 2 floating-point operations for each weight of the layers' linears and each token, and 4 * heads *
head_dim for each pair of a query and a key that it sees: one product for the score, one for the sum.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heddle.checkpoint import Checkpoint

Config = dict[str, Any]

# What the dry run makes of every model.
TINY: Config = {
    "vocab_size": 997,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}

QWEN3_EMBEDDING_8B: Config = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151_665,
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12_288,
    "hidden_act": "silu",
    "max_position_embeddings": 40_960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000,
}
BERT: Config = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 30_522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
BGE_LARGE: Config = {
    **BERT,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
MINILM: Config = {
    **BERT,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}


@dataclass(frozen=True)
class ModelShape:
    name: str
    config: Config
    dtype: str
    pooling: str  # as sentence-transformers calls it

    @property
    def is_decoder(self) -> bool:
        return bool(self.config["model_type"] == "qwen3")

    @property
    def layers(self) -> int:
        return int(self.config["num_hidden_layers"])

    @property
    def head_dim(self) -> int:
        heads: int = self.config["num_attention_heads"]
        return int(self.config.get("head_dim", self.config["hidden_size"] // heads))

    @property
    def linears(self) -> Sequence[tuple[str, int, int]]:
        """The linears of a layer as the engine fuses them: name, outputs, inputs."""
        hidden, inner = self.config["hidden_size"], self.config["intermediate_size"]
        heads = int(self.config["num_attention_heads"])
        num_kv_heads = int(self.config.get("num_key_value_heads", heads))
        width = heads * self.head_dim
        return (
            ("query, key, value", (heads + 2 * num_kv_heads) * self.head_dim, hidden),
            ("attention output", hidden, width),
            ("gate and up" if self.is_decoder else "up", inner * (2 if self.is_decoder else 1), hidden),
            ("down", hidden, inner),
        )

    @property
    def weights(self) -> int:
        """Number of weights in the linears of all layers."""
        return self.layers * sum(outputs * inputs for _, outputs, inputs in self.linears)

    def linear_flops(self, tokens: int) -> float:
        return 2.0 * self.weights * tokens

    def attention_flops(self, lengths: Sequence[int]) -> float:
        pairs = sum(length * (length + 1) / 2 if self.is_decoder else length**2 for length in lengths)
        heads = int(self.config["num_attention_heads"])
        return 4.0 * self.layers * heads * self.head_dim * pairs

    def tiny(self) -> "ModelShape":
        decoder = {"num_key_value_heads": 2, "head_dim": 16} if self.is_decoder else {}
        return dataclasses.replace(self, config={**self.config, **TINY, **decoder})

    def checkpoint(self, folder: Path) -> Checkpoint:
        """Writes the configuration into the folder, without weights, and reads it."""
        modules = ("Transformer", "Pooling", "Normalize")
        listing = [
            {"idx": index, "name": str(index), "path": f"{index}_{name}" if index else "", "type": TYPE + name}
            for index, name in enumerate(modules)
        ]
        write_json(folder / "config.json", self.config)
        write_json(folder / "modules.json", listing)
        write_json(folder / "1_Pooling" / "config.json", {f"pooling_mode_{self.pooling}": True})
        return Checkpoint.read(folder, self.name)


TYPE = "sentence_transformers.models."

SHAPES = (
    ModelShape("Qwen3-Embedding-8B", QWEN3_EMBEDDING_8B, "bfloat16", "lasttoken"),
    ModelShape("bge-large", BGE_LARGE, "float16", "cls_token"),
    ModelShape("all-MiniLM", MINILM, "float16", "mean_tokens"),
)


def shapes(*, is_dry: bool) -> Sequence[ModelShape]:
    return [shape.tiny() for shape in SHAPES] if is_dry else SHAPES


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
