"""Parity cases of Jina's BERT, whose code is not in transformers: the reference is written here, from its description.

The weights are drawn for the names and shapes that the checkpoints on the hub have.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from heddle.checkpoint import ModelKind
from tests.checkpoints import SMALL_BERT, write_json, write_old_modules
from tests.engine_svc.models.cases import Case, Reference
from tests.engine_svc.models.packed import ALL_LENGTHS

LONGEST = 300
HIDDEN = SMALL_BERT["hidden_size"]

# The config of jina-embeddings-v2-base-en and similar models.
SMALL: dict[str, Any] = {
    **SMALL_BERT,
    "model_type": "bert",
    "architectures": ["JinaBertModel"],
    "auto_map": {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"},
    "position_embedding_type": "alibi",
    "feed_forward_type": "geglu",
    "emb_pooler": "mean",
    "attn_implementation": None,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": LONGEST,
    "type_vocab_size": 2,
    "torch_dtype": "float32",
}

# The slopes as the paper's authors have them for 8 heads; those of 4 are every other one, of 12 those of 8 and 4 of 16.
OF_8 = [2.0**-exponent for exponent in range(1, 9)]
SLOPES = {2: [2.0**-4, 2.0**-8], 4: OF_8[1::2], 8: OF_8, 12: [*OF_8, *(2.0 ** -(0.5 + index) for index in range(4))]}

Weights = Mapping[str, Tensor]


def list_shapes(config: Mapping[str, Any], *, is_later: bool) -> dict[str, list[int]]:
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": [config["vocab_size"], hidden],
        "embeddings.token_type_embeddings.weight": [config["type_vocab_size"], hidden],
        "embeddings.LayerNorm.weight": [hidden],
        "embeddings.LayerNorm.bias": [hidden],
        "pooler.dense.weight": [hidden, hidden],
        "pooler.dense.bias": [hidden],
    }
    norms, linears = ["attention.output.LayerNorm"], {}
    for part in ("self.query", "self.key", "self.value", "output.dense"):
        linears[f"attention.{part}"] = [hidden, hidden]
    if is_later:
        norms += ["attention.self.layer_norm_q", "attention.self.layer_norm_k", "layer_norm_1", "layer_norm_2"]
        linears["mlp.down_layer"] = [hidden, intermediate]
    elif config["feed_forward_type"] == "original":
        norms += ["output.LayerNorm"]
        linears |= {"intermediate.dense": [intermediate, hidden], "output.dense": [hidden, intermediate]}
    else:
        norms += ["mlp.layernorm"]
        linears["mlp.wo"] = [hidden, intermediate]
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for name in norms:
            shapes |= {f"{layer}.{name}.weight": [hidden], f"{layer}.{name}.bias": [hidden]}
        for name, shape in linears.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        if config["feed_forward_type"] != "original":
            gate = "up_gated_layer" if is_later else "gated_layers"
            shapes[f"{layer}.mlp.{gate}.weight"] = [2 * intermediate, hidden]
    return shapes


def draw_weights(shapes: Mapping[str, list[int]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(name: str, shape: Sequence[int]) -> Tensor:
        noise: Tensor = torch.randn(shape, generator=generator)
        if len(shape) == 2:
            return noise.div_(shape[1] ** 0.5)
        return noise.mul_(0.1).add_(1 if "orm" in name and name.endswith("weight") else 0)

    return {name: draw(name, shape) for name, shape in shapes.items()}


class JinaBert:
    def __init__(self, config: Mapping[str, Any], weights: Weights, *, is_later: bool) -> None:
        self.config = config
        self.weights = weights
        self.is_later = is_later

    def __call__(self, ids: Tensor, types: Tensor) -> Tensor:
        """Hidden states [tokens, hidden] of one sequence."""
        words, kinds = (self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "token_type"))
        hidden = self.norm(words[ids[0]] + kinds[types[0]], "embeddings.LayerNorm")
        for index in range(self.config["num_hidden_layers"]):
            hidden = self.layer(hidden, f"encoder.layer.{index}")
        return hidden

    def logits(self, ids: Tensor, types: Tensor) -> Tensor:
        """The output of the class with a classifier."""
        return self.linear(self.linear(self(ids, types)[0], "pooler.dense").tanh(), "classifier")

    def layer(self, hidden: Tensor, layer: str) -> Tensor:
        attended = self.linear(self.attention(hidden, f"{layer}.attention.self"), f"{layer}.attention.output.dense")
        attended = self.norm(attended + hidden, f"{layer}.attention.output.LayerNorm")
        if self.is_later:
            attended = self.norm(attended + hidden, f"{layer}.layer_norm_1")
            return self.norm(attended + self.feed_forward(attended, layer), f"{layer}.layer_norm_2")
        norm = "output.LayerNorm" if self.config["feed_forward_type"] == "original" else "mlp.layernorm"
        return self.norm(attended + self.feed_forward(attended, layer), f"{layer}.{norm}")

    def attention(self, hidden: Tensor, name: str) -> Tensor:
        query, key, value = (self.linear(hidden, f"{name}.{part}") for part in ("query", "key", "value"))
        if self.is_later:
            query, key = self.norm(query, f"{name}.layer_norm_q"), self.norm(key, f"{name}.layer_norm_k")
        tokens, heads = len(hidden), self.config["num_attention_heads"]
        query, key, value = (part.view(tokens, heads, -1).transpose(0, 1) for part in (query, key, value))
        places = torch.arange(tokens)
        distances = (places[:, None] - places).abs()
        scores = query @ key.transpose(1, 2) / query.shape[2] ** 0.5
        scores = scores - torch.tensor(SLOPES[heads])[:, None, None] * distances
        attended: Tensor = scores.softmax(-1) @ value
        return attended.transpose(0, 1).flatten(1)

    def feed_forward(self, hidden: Tensor, layer: str) -> Tensor:
        kind = self.config["feed_forward_type"]
        if kind == "original":
            return self.linear(
                functional.gelu(self.linear(hidden, f"{layer}.intermediate.dense")), f"{layer}.output.dense"
            )
        gate = functional.relu if kind == "reglu" else functional.gelu
        first, second = self.linear(
            hidden, f"{layer}.mlp.{'up_gated_layer' if self.is_later else 'gated_layers'}"
        ).chunk(2, -1)
        if self.is_later:
            return self.linear(first * gate(second), f"{layer}.mlp.down_layer")
        return self.linear(gate(first) * second, f"{layer}.mlp.wo")

    def linear(self, rows: Tensor, name: str) -> Tensor:
        return functional.linear(rows, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, rows: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.layer_norm(rows, weight.shape, weight, bias, self.config["layer_norm_eps"])


def case(name: str, *, is_later: bool = False, lengths: Sequence[int] = ALL_LENGTHS, **changes: Any) -> Case:
    """An embedder; `changes` are to SMALL."""

    def write(folder: Path) -> Reference:
        config = {**SMALL, **changes}
        weights = draw_weights(list_shapes(config, is_later=is_later))
        save(folder, config, weights)
        write_old_modules(folder, ["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True})
        return JinaBert(config, weights, is_later=is_later)

    return Case("jina-bert", name, ModelKind.EMBEDDER, write, has_types=True, lengths=lengths)


def save(folder: Path, config: Mapping[str, Any], weights: Weights) -> None:
    write_json(folder / "config.json", config)
    save_file(dict(weights), folder / "model.safetensors")


def classifier(kind: ModelKind, name: str, labels: int) -> Case:
    """The transformer is below `bert.` there."""

    def write(folder: Path) -> Reference:
        labels_by_index = {str(index): f"LABEL_{index}" for index in range(labels)}
        config = {**SMALL, "architectures": ["JinaBertForSequenceClassification"], "id2label": labels_by_index}
        shapes = {"classifier.weight": [labels, HIDDEN], "classifier.bias": [labels]}
        weights = draw_weights({**list_shapes(config, is_later=False), **shapes})
        save(folder, config, {key if key in shapes else f"bert.{key}": tensor for key, tensor in weights.items()})
        model = JinaBert(config, weights, is_later=False)
        return model.logits

    return Case("jina-bert", name, kind, write, has_types=True)


CASES = [
    case("as jina-embeddings-v2-base-en", architectures=["JinaBertForMaskedLM"], lengths=(*ALL_LENGTHS, 130, LONGEST)),
    case("twelve heads", num_attention_heads=12, hidden_size=48),
    case("eight heads", num_attention_heads=8),
    case("reglu", feed_forward_type="reglu"),
    case("feed-forward of BERT", feed_forward_type="original"),
    case("as jina-embeddings-v2-base-code", is_later=True, attn_implementation="torch", lengths=(*ALL_LENGTHS, 270)),
    case("the later one, reglu", is_later=True, feed_forward_type="reglu", num_attention_heads=2),
    classifier(ModelKind.RERANKER, "as jina-reranker-v1-turbo-en", 1),
    classifier(ModelKind.CLASSIFIER, "five labels", 5),
]
