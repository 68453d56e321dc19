"""Decoders: Llama, Mistral, Qwen2 and 3, Gemma 1 to 3, which are small variations of one another, causal or not.

Embedders (E5-Mistral, SFR, GTE-Qwen2, Qwen3-Embedding, Nemotron, bge-multilingual-gemma2, EmbeddingGemma), rerankers
and reward models (one label), classifiers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine_svc.models.activations import Activation
from engine_svc.models.architectures.bert import Heads
from engine_svc.models.architectures.decoder_attention import (
    AttentionType,
    build_attention_types,
    full_layer_types,
    gemma2_layer_types,
    gemma3_layer_types,
    mistral_layer_types,
    qwen_layer_types,
)
from engine_svc.models.heads.classification import (
    SequenceClassificationHead,
    TokenClassificationHead,
    load_float32_linear,
)
from engine_svc.models.heads.head import Head
from engine_svc.models.heads.vector_modules import Stage
from engine_svc.models.linear import load_linear, make_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import RMSNorm, load_rms_norm
from engine_svc.models.transformer import Attention, BranchNorms, Embeddings, GatedFeedForward, Layer, Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.language_models import NEMO_POOLINGS
from heddle.checkpoint.sentence_modules import LogitScore, Pooling

WORDS, LM_HEAD = "embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Family:
    """What a config does not say about a decoder."""

    layer_types: Callable[[ModelConfig], Sequence[str]]
    qkv_bias: bool = False  # whatever attention_bias says
    qk_norm: bool = False
    output_norms: bool = False  # norms of the outputs of branches, too
    is_gemma: bool = False  # norms store their difference from 1, embeddings are scaled, GELU
    head_dim: int | None = None  # the default; None = hidden size / heads
    softcap: bool = False
    query_pre_attn_scalar: bool = False  # scales the scores, in place of head_dim


LLAMA = Family(full_layer_types)
FAMILIES = {
    "llama": LLAMA,
    "llama_bidirec": LLAMA,
    "mistral": Family(mistral_layer_types),
    "qwen2": Family(qwen_layer_types, qkv_bias=True),
    "qwen3": Family(qwen_layer_types, qk_norm=True, head_dim=128),
    "gemma": Family(full_layer_types, is_gemma=True, head_dim=256),
    "gemma2": Family(
        gemma2_layer_types,
        output_norms=True,
        is_gemma=True,
        head_dim=256,
        softcap=True,
        query_pre_attn_scalar=True,
    ),
    "gemma3_text": Family(
        gemma3_layer_types,
        qk_norm=True,
        output_norms=True,
        is_gemma=True,
        head_dim=256,
        query_pre_attn_scalar=True,
    ),
}


def load(config: ModelConfig, weights: Weights) -> Transformer:
    return Loader.of(config, weights).load()


@dataclass(frozen=True, slots=True)
class Loader:
    """The sizes of a decoder, and where its weights come from."""

    config: ModelConfig
    weights: Weights
    family: Family
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: ModelConfig, weights: Weights) -> "Loader":
        family = FAMILIES[config.get("model_type")]
        num_heads = config.num_heads
        num_kv_heads = config.positive("num_key_value_heads", default=num_heads)
        if num_heads % num_kv_heads:
            config.refuse(f"{num_heads} heads cannot share {num_kv_heads} heads of keys and values")
        head_dim = config.positive("head_dim", default=family.head_dim or config.head_dim)
        return cls(config, weights, family, config.hidden_size, num_heads, num_kv_heads, head_dim)

    def load(self) -> Transformer:
        layer_types = self.family.layer_types(self.config)
        attention_types = build_attention_types(
            *(self.config, layer_types, self.head_dim, self.weights.device), scale=self.scale(), softcap=self.softcap()
        )

        def load_layer(layer: tuple[int, str]) -> Layer:
            index, layer_type = layer
            return self.load_layer(f"layers.{index}", attention_types[layer_type])

        return Transformer(
            embeddings=self.load_embeddings(),
            layers=self.weights.load_each(load_layer, enumerate(layer_types)),
            norm=self.load_norm("norm", self.hidden_size),
        )

    def load_embeddings(self) -> Embeddings:
        is_tied = self.config.get("tie_word_embeddings", True)
        name = self.weights.first_present(WORDS, LM_HEAD) if is_tied else WORDS
        words = self.weights.load(name, [self.config.vocab_size, self.hidden_size])
        # Gemma was trained with the scale in the model's type.
        scale = torch.tensor(self.hidden_size**0.5 if self.family.is_gemma else 1.0).to(words.dtype).item()
        return Embeddings(words, scale=scale)

    def load_layer(self, name: str, attention_type: AttentionType) -> Layer:
        def norm(kind: str) -> RMSNorm:
            return self.load_norm(f"{name}.{kind}_layernorm", self.hidden_size)

        if self.family.output_norms:
            attention_norms = BranchNorms(input=norm("input"), output=norm("post_attention"))
            feed_forward_norms = BranchNorms(input=norm("pre_feedforward"), output=norm("post_feedforward"))
        else:
            attention_norms, feed_forward_norms = BranchNorms(norm("input")), BranchNorms(norm("post_attention"))
        attention = self.load_attention(f"{name}.self_attn", attention_type)
        return Layer(attention, attention_norms, self.load_feed_forward(f"{name}.mlp"), feed_forward_norms)

    def load_attention(self, name: str, attention_type: AttentionType) -> Attention:
        has_bias = bool(self.config.get("attention_bias"))
        q_size, kv_size = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return Attention(
            qkv_proj=load_linear(
                self.weights,
                [f"{name}.{projection}_proj" for projection in "qkv"],
                [q_size, kv_size, kv_size],
                self.hidden_size,
                bias=has_bias or self.family.qkv_bias,
            ),
            o_proj=load_linear(self.weights, f"{name}.o_proj", self.hidden_size, q_size, bias=has_bias),
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            pattern=attention_type.pattern,
            rotary=attention_type.rotary,
            qk_norm=self.load_qk_norm(name) if self.family.qk_norm else None,
        )

    def load_qk_norm(self, name: str) -> RMSNorm:
        query, key = (self.load_norm(f"{name}.{part}_norm", self.head_dim) for part in "qk")
        if query.weight.is_meta:
            return query
        weight = torch.cat([query.weight.expand(self.num_heads, -1), key.weight.expand(self.num_kv_heads, -1)])
        return RMSNorm(weight, query.epsilon)

    def load_feed_forward(self, name: str) -> GatedFeedForward:
        intermediate_size = self.config.intermediate_size
        load = partial(load_linear, self.weights, bias=bool(self.config.get("mlp_bias")))
        return GatedFeedForward(
            gate_up_proj=load([f"{name}.gate_proj", f"{name}.up_proj"], intermediate_size, self.hidden_size),
            activation=self.activation(),
            down_proj=load(f"{name}.down_proj", self.hidden_size, intermediate_size),
            intermediate_size=intermediate_size,
        )

    def load_norm(self, name: str, size: int) -> RMSNorm:
        epsilon = self.config.number("rms_norm_eps", 1e-6)
        return load_rms_norm(self.weights, name, size, epsilon, offset=1.0 if self.family.is_gemma else 0.0)

    def activation(self) -> Activation:
        if not self.family.is_gemma:
            return self.config.activation("hidden_act", "silu")
        if self.config.get("hidden_activation"):
            return self.config.activation("hidden_activation")
        stated = self.config.activation("hidden_act", "gelu_pytorch_tanh")
        # The first Gemmas say gelu, but were trained with the approximation.
        return Activation.GELU_TANH if stated is Activation.GELU else stated

    def scale(self) -> float | None:
        has_scalar = self.family.query_pre_attn_scalar
        return self.config.number("query_pre_attn_scalar", 256) ** -0.5 if has_scalar else None

    def softcap(self) -> float | None:
        name = "attn_logit_softcapping"
        if not self.family.softcap or self.config.values.get(name, 0) is None:
            return None
        return self.config.number(name, 50.0)


def load_sequence_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """The heads of LlamaForSequenceClassification and its like pool the last token, even if tokens see all of the text.
    NVIDIA's LlamaBidirectionalForSequenceClassification pools as its config says, and has a temperature."""
    config = ModelConfig.of(checkpoint)
    if checkpoint.logit_score is not None:
        return SequenceClassificationHead(Pooling.LAST_TOKEN, load_logit_score(checkpoint.logit_score, config, weights))
    if config.get("model_type") != "llama_bidirec":
        return SequenceClassificationHead(Pooling.LAST_TOKEN, [load_score(checkpoint, weights)])
    pooling, temperature = config.get("pooling", "avg"), config.number("temperature", 1.0)
    if pooling not in NEMO_POOLINGS:
        config.refuse(f"pooling {pooling} is not supported")

    def divide_by_temperature(logits: Tensor) -> Tensor:
        return logits / temperature

    stages = [load_score(checkpoint, weights), divide_by_temperature]
    return SequenceClassificationHead(NEMO_POOLINGS[pooling], stages)


def load_token_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """The head of LlamaForTokenClassification and its like."""
    return TokenClassificationHead([load_score(checkpoint, weights)])


def load_score(checkpoint: Checkpoint, weights: Weights) -> Stage:
    hidden_size = ModelConfig.of(checkpoint).hidden_size
    return load_float32_linear(weights, "score", len(checkpoint.labels), hidden_size, bias=weights.has("score.bias"))


def load_logit_score(score: LogitScore, config: ModelConfig, weights: Weights) -> list[Stage]:
    """Loads only those rows of the language model's head that belong to the tokens of the score."""
    ids = [score.true_id] if score.false_id is None else [score.true_id, score.false_id]
    shape = [config.vocab_size, config.hidden_size]
    if max(ids) >= shape[0]:
        config.refuse(f"the token {max(ids)}, whose logit is the score, is outside the vocabulary of {shape[0]}")
    head = weights.first_present(LM_HEAD, WORDS)
    cap = config.get("final_logit_softcapping")

    def subtract(logits: Tensor) -> Tensor:
        if cap is not None:
            logits = cap * torch.tanh(logits / cap)
        return logits if len(ids) == 1 else logits[:, :1] - logits[:, 1:]

    return [make_linear(weights.load_rows(head, shape, ids, torch.float32), None), subtract]


HEADS: Heads = {
    ModelKind.CLASSIFIER: load_sequence_classification,
    ModelKind.RERANKER: load_sequence_classification,
    ModelKind.TOKEN_CLASSIFIER: load_token_classification,
}
