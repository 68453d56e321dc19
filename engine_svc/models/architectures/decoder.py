"""Decoders: Llama, Mistral, Qwen2 and 3, Gemma 1 to 3, which are small variations of one another, causal or not.

Embedders (E5-Mistral, SFR, GTE-Qwen2, Qwen3-Embedding, Nemotron, bge-multilingual-gemma2, EmbeddingGemma), rerankers
and reward models (one label), classifiers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine_svc.models.activations import Activation
from engine_svc.models.architectures.decoder_attention import (
    Sight,
    layer_types_of_all,
    layer_types_of_gemma2,
    layer_types_of_gemma3,
    layer_types_of_mistral,
    layer_types_of_qwen,
    sights_of,
)
from engine_svc.models.heads.classification import SequenceClassificationHead, TokenClassificationHead, float32_linear
from engine_svc.models.heads.head import Head
from engine_svc.models.heads.vector_modules import Stage
from engine_svc.models.linear import linear, load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import RMSNorm, load_rms_norm
from engine_svc.models.transformer import Attention, Embeddings, GatedFeedForward, Layer, Norms, Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.language_models import NEMO_POOLINGS
from heddle.checkpoint.sentence_modules import LogitScore, Pooling

PREFIX = "model."  # of the decoder's weights in a model with a head
UNUSED = ("lm_head.",)

WORDS, HEAD = "embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Family:
    """What a config does not say of a decoder."""

    layer_types: Callable[[ModelConfig], Sequence[str]]
    has_query_bias: bool = False  # and of keys and values, whatever attention_bias says
    normalizes_heads: bool = False  # queries and keys
    normalizes_updates: bool = False  # what a branch adds, too
    is_gemma: bool = False  # norms store their difference from 1, embeddings are scaled, GELU
    head_dim: int | None = None  # where the config has none; None = hidden size over heads
    caps_scores: bool = False
    scales_by_config: bool = False  # scores, by query_pre_attn_scalar and not by head_dim


LLAMA = Family(layer_types_of_all)
FAMILIES = {
    "llama": LLAMA,
    "llama_bidirec": LLAMA,
    "mistral": Family(layer_types_of_mistral),
    "qwen2": Family(layer_types_of_qwen, has_query_bias=True),
    "qwen3": Family(layer_types_of_qwen, normalizes_heads=True, head_dim=128),
    "gemma": Family(layer_types_of_all, is_gemma=True, head_dim=256),
    "gemma2": Family(
        layer_types_of_gemma2,
        normalizes_updates=True,
        is_gemma=True,
        head_dim=256,
        caps_scores=True,
        scales_by_config=True,
    ),
    "gemma3_text": Family(
        layer_types_of_gemma3,
        normalizes_heads=True,
        normalizes_updates=True,
        is_gemma=True,
        head_dim=256,
        scales_by_config=True,
    ),
}


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError for a tensor that is missing or not of the config's shape, and for what is not here."""
    return Loader.of(config, weights).transformer()


@dataclass(frozen=True, slots=True)
class Loader:
    """The sizes of a decoder, and where it is loaded from."""

    config: ModelConfig
    weights: Weights
    family: Family
    hidden: int
    heads: int
    key_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: ModelConfig, weights: Weights) -> "Loader":
        family = FAMILIES[config.get("model_type")]
        hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
        key_heads = config.positive("num_key_value_heads", default=heads)
        if heads % key_heads:
            config.refuse(f"{heads} heads cannot share {key_heads} heads of keys and values")
        head_dim = config.positive("head_dim", default=family.head_dim or config.head_dim(hidden, heads))
        return cls(config, weights, family, hidden, heads, key_heads, head_dim)

    def transformer(self) -> Transformer:
        layer_types = self.family.layer_types(self.config)
        sights = sights_of(
            *(self.config, layer_types, self.head_dim, self.weights.device), scale=self.scale(), softcap=self.softcap()
        )
        return Transformer(
            embeddings=self.embeddings(),
            layers=[self.layer(f"layers.{index}", sights[kind]) for index, kind in enumerate(layer_types)],
            norm=self.norm("norm", self.hidden),
        )

    def embeddings(self) -> Embeddings:
        is_tied = self.config.get("tie_word_embeddings", True)
        name = self.weights.first_of(WORDS, HEAD) if is_tied else WORDS
        words = self.weights.take(name, [self.config.positive("vocab_size"), self.hidden])
        # Gemma was trained with the scale in the model's type.
        scale = torch.tensor(self.hidden**0.5 if self.family.is_gemma else 1.0).to(words.dtype).item()
        return Embeddings(words, scale=scale)

    def layer(self, name: str, sight: Sight) -> Layer:
        before, after = (self.norm(f"{name}.{part}_layernorm", self.hidden) for part in ("input", "post_attention"))
        attention, feed_forward = Norms(before=before), Norms(before=after)
        if self.family.normalizes_updates:
            inner, outer = (self.norm(f"{name}.{part}_feedforward_layernorm", self.hidden) for part in ("pre", "post"))
            attention, feed_forward = Norms(before=before, behind=after), Norms(before=inner, behind=outer)
        return Layer(self.attention(f"{name}.self_attn", sight), attention, self.feed_forward(name), feed_forward)

    def attention(self, name: str, sight: Sight) -> Attention:
        has_bias = bool(self.config.get("attention_bias"))
        queries, keys = self.heads * self.head_dim, self.key_heads * self.head_dim
        return Attention(
            query_key_value=load_linear(
                self.weights,
                [f"{name}.{projection}_proj" for projection in "qkv"],
                [queries, keys, keys],
                self.hidden,
                bias=has_bias or self.family.has_query_bias,
            ),
            output=load_linear(self.weights, f"{name}.o_proj", self.hidden, queries, bias=has_bias),
            heads=self.heads,
            key_heads=self.key_heads,
            pattern=sight.pattern,
            rotary=sight.rotary,
            head_norm=self.head_norm(name) if self.family.normalizes_heads else None,
        )

    def head_norm(self, name: str) -> RMSNorm:
        query, key = (self.norm(f"{name}.{part}_norm", self.head_dim) for part in "qk")
        weight = torch.cat([query.weight.expand(self.heads, -1), key.weight.expand(self.key_heads, -1)])
        return RMSNorm(weight, query.epsilon)

    def feed_forward(self, name: str) -> GatedFeedForward:
        intermediate = self.config.positive("intermediate_size")
        loads = partial(load_linear, self.weights, bias=bool(self.config.get("mlp_bias")))
        return GatedFeedForward(
            gate_up=loads([f"{name}.mlp.gate_proj", f"{name}.mlp.up_proj"], intermediate, self.hidden),
            activation=self.activation(),
            down=loads(f"{name}.mlp.down_proj", self.hidden, intermediate),
            intermediate=intermediate,
        )

    def norm(self, name: str, size: int) -> RMSNorm:
        epsilon = self.config.number("rms_norm_eps", 1e-6)
        return load_rms_norm(self.weights, name, size, epsilon, plus=1.0 if self.family.is_gemma else 0.0)

    def activation(self) -> Activation:
        if not self.family.is_gemma:
            return self.config.activation("hidden_act", "silu")
        if self.config.get("hidden_activation"):
            return self.config.activation("hidden_activation")
        stated = self.config.activation("hidden_act", "gelu_pytorch_tanh")
        # The first Gemmas say gelu, and mean the approximation that they were trained with.
        return Activation.GELU_TANH if stated is Activation.GELU else stated

    def scale(self) -> float | None:
        return self.config.number("query_pre_attn_scalar", 256) ** -0.5 if self.family.scales_by_config else None

    def softcap(self) -> float | None:
        name = "attn_logit_softcapping"
        if not self.family.caps_scores or self.config.values.get(name, 0) is None:
            return None
        return self.config.number(name, 50.0)


def load_sequence_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of LlamaForSequenceClassification and its like: the last token speaks for the text, also where tokens see all of
    it. NVIDIA's LlamaBidirectionalForSequenceClassification pools as its config says, and has a temperature."""
    config = ModelConfig.of(checkpoint)
    if checkpoint.logit_score is not None:
        return SequenceClassificationHead(Pooling.LAST_TOKEN, load_logit_score(checkpoint.logit_score, config, weights))
    if config.get("model_type") != "llama_bidirec":
        return SequenceClassificationHead(Pooling.LAST_TOKEN, [load_score(checkpoint, weights)])
    pooling, temperature = config.get("pooling", "avg"), config.number("temperature", 1.0)
    if pooling not in NEMO_POOLINGS:
        config.refuse(f"pooling {pooling} is not supported")

    def warmed(logits: Tensor) -> Tensor:
        return logits / temperature

    return SequenceClassificationHead(NEMO_POOLINGS[pooling], [load_score(checkpoint, weights), warmed])


def load_token_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of LlamaForTokenClassification and its like."""
    return TokenClassificationHead([load_score(checkpoint, weights)])


def load_score(checkpoint: Checkpoint, weights: Weights) -> Stage:
    hidden = ModelConfig.of(checkpoint).positive("hidden_size")
    return float32_linear(weights, "score", len(checkpoint.labels), hidden, bias=weights.has("score.bias"))


def load_logit_score(score: LogitScore, config: ModelConfig, weights: Weights) -> list[Stage]:
    """Of the language model's head no more than the rows of the tokens that count."""
    ids = [score.true_id] if score.false_id is None else [score.true_id, score.false_id]
    shape = [config.positive("vocab_size"), config.positive("hidden_size")]
    if max(ids) >= shape[0]:
        config.refuse(f"the token {max(ids)}, whose logit is the score, is outside the vocabulary of {shape[0]}")
    head = weights.first_of(HEAD, WORDS)
    cap = config.get("final_logit_softcapping")

    def difference(logits: Tensor) -> Tensor:
        if cap is not None:
            logits = cap * torch.tanh(logits / cap)
        return logits if len(ids) == 1 else logits[:, :1] - logits[:, 1:]

    return [linear(weights.take_rows(head, shape, ids, torch.float32), None), difference]


HEADS: Mapping[ModelKind, Callable[[Checkpoint, Weights], Head]] = {
    ModelKind.CLASSIFIER: load_sequence_classification,
    ModelKind.RERANKER: load_sequence_classification,
    ModelKind.TOKEN_CLASSIFIER: load_token_classification,
}
