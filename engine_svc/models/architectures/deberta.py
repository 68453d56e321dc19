"""DeBERTa v2 and v3, mDeBERTa: BERT with disentangled attention (He et al. 2020, arXiv 2006.03654), and most often with
distances of tokens in place of positions.

A score is the usual product of query and key, plus a product of the query and an embedding of their distance (content
to position, c2p), plus a product of the key and such an embedding (p2c). Distances have buckets. The embeddings of
buckets are projected at load. A pass multiplies each query and key by all buckets, and then looks up the bucket of each
pair of tokens: on CUDA in the attention kernel, elsewhere for some queries at a time.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.architectures import bert
from engine_svc.models.attention import TILE_NUMBERS_MAX, view_rows
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.heads.head import Head
from engine_svc.models.kernels.launch import runs_kernels
from engine_svc.models.layout import Layout
from engine_svc.models.linear import load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.quantized_linear import load_dequantized
from engine_svc.models.transformer import Attention, BranchInput, Layer, Rotations, Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint

PROJECTIONS = ("query_proj", "key_proj", "value_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class DisentangledAttention(Attention):
    """All tokens of a sequence see each other."""

    scale: float
    position_keys: Tensor | None  # [heads, head_dim, buckets]: queries are multiplied by them (c2p)
    position_queries: Tensor | None  # [heads, head_dim, buckets]: keys are multiplied by them (p2c)
    num_buckets: int
    buckets: Tensor  # int64 [2 * longest - 1]: the bucket of the distance of a key from a query, from 1 - longest on

    def __call__(self, hidden: BranchInput, layout: Layout, rotations: Rotations) -> Tensor:
        projected = self.qkv_proj(hidden).view(len(hidden), 3, self.num_heads, -1)
        attend = self.attend_by_kernel if runs_kernels(hidden.device) else self.attend_by_group
        query, key, value = projected.unbind(1)
        return self.o_proj(attend(query, key, value, layout).flatten(1))

    def attend_by_kernel(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        from engine_svc.models.kernels.attention import RelativeBias, attend_by_kernel

        c2p, p2c = (
            None if positions is None else tokens.transpose(0, 1) @ positions
            for tokens, positions in ((query, self.position_keys), (key, self.position_queries))
        )
        pattern, bias = AttentionPattern(scale=self.scale), RelativeBias(c2p, p2c, self.buckets)
        return attend_by_kernel(query, key, value, layout, pattern, relative_bias=bias)

    def attend_by_group(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        result = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        for group in layout.groups:
            step = max(1, self._queries_max(group.length) // group.length)
            parts = [torch.split(view_rows(part, group), step) for part in (result, query, key, value)]
            for own, *others in zip(*parts, strict=True):
                self._attend(own, *others)
        result[layout.groups[-1].stop_row :] = 0
        return result

    def _queries_max(self, length: int) -> int:
        """How many queries of a sequence of this length have their scores in memory at once."""
        return max(1, TILE_NUMBERS_MAX // (self.num_heads * max(length, self.num_buckets)))

    def _attend(self, result: Tensor, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Fills `result` for sequences of one length, [sequences, heads, length, head_dim], some queries at a time."""
        length = query.shape[2]
        p2c = None if self.position_queries is None else key @ self.position_queries
        for start in range(0, length, step := self._queries_max(length)):
            queries = range(start, min(start + step, length))
            own = query[:, :, start : queries.stop]
            bias = self._bias(own, p2c, self._select_buckets(queries, length)).mul_(self.scale)
            attended = functional.scaled_dot_product_attention(own, key, value, bias, scale=self.scale)
            result[:, :, start : queries.stop] = attended

    def _bias(self, query: Tensor, p2c: Tensor | None, buckets: Tensor) -> Tensor:
        """[sequences, heads, queries, keys]; `buckets` is [queries, keys]."""
        buckets = buckets.expand(*query.shape[:2], -1, -1)
        bias = torch.zeros(buckets.shape, dtype=query.dtype, device=query.device)
        if self.position_keys is not None:
            bias += (query @ self.position_keys).gather(3, buckets)
        if p2c is not None:
            bias += p2c.gather(3, buckets.transpose(2, 3)).transpose(2, 3)
        return bias

    def _select_buckets(self, queries: range, length: int) -> Tensor:
        zero = len(self.buckets) // 2
        near = self.buckets[zero + 1 - queries.stop : zero + length - queries.start]
        return near.unfold(0, length, 1).flip(0)


def load(config: ModelConfig, weights: Weights) -> Transformer:
    if not config.get("relative_attention", False):  # also the default
        config.refuse("relative_attention False is not supported")
    config.require("conv_kernel_size", 0)
    config.require("embedding_size", config.hidden_size)
    embeddings = bert.load_embeddings(
        config,
        weights,
        has_positions=config.get("position_biased_input", True),
        has_types=config.get("type_vocab_size", 0) > 0,
    )
    positions = load_relative_embeddings(config, weights)
    buckets = find_buckets(config).to(weights.device)
    layers = weights.load_each(
        lambda index: load_layer(config, weights, index, positions, buckets), range(config.num_layers)
    )
    return Transformer(embeddings, layers)


def load_relative_embeddings(config: ModelConfig, weights: Weights) -> Tensor:
    """float32 [buckets, hidden size]"""
    hidden_size = config.hidden_size
    table = weights.load("encoder.rel_embeddings.weight", [2 * bucket_span(config), hidden_size], torch.float32)
    if "layer_norm" not in str(config.get("norm_rel_ebd", "none")).lower():
        return table
    weight, bias = (
        weights.load(f"encoder.LayerNorm.{part}", [hidden_size], torch.float32) for part in ("weight", "bias")
    )
    epsilon = config.number("layer_norm_eps", 1e-12)
    return table if table.is_meta else functional.layer_norm(table, [hidden_size], weight, bias, epsilon)


def bucket_span(config: ModelConfig) -> int:
    """The number of buckets on either side."""
    buckets = config.get("position_buckets", -1)
    return buckets if buckets > 0 else max_distance(config)


def max_distance(config: ModelConfig) -> int:
    stated = config.get("max_relative_positions", -1)
    return stated if stated > 0 else config.positive("max_position_embeddings")


def find_buckets(config: ModelConfig) -> Tensor:
    """The bucket of each distance. Buckets count up as keys come farther before the query. If the config has
    `position_buckets`, only near distances have a bucket each; farther ones share them in steps that grow with the
    distance."""
    longest, span = config.positive("max_position_embeddings"), bucket_span(config)
    before = -torch.arange(1 - longest, longest)
    if config.get("position_buckets", -1) > 0:
        near = span // 2
        steps = before.abs().clamp(min=near)
        growth = torch.log(steps / near) / torch.log(torch.tensor((max_distance(config) - 1) / near))
        far = torch.ceil(growth * (near - 1)).long() + near
        before = torch.where(before.abs() <= near, before, far * before.sign())
    return (before + span).clamp(0, 2 * span - 1)


def load_layer(config: ModelConfig, weights: Weights, index: int, positions: Tensor, buckets: Tensor) -> Layer:
    name = bert.NAMES.layer.format(index=index)
    return Layer(
        attention=load_attention(config, weights, f"{name}.attention", positions, buckets),
        attention_norms=bert.load_post_norm(config, weights, f"{name}.attention.output.LayerNorm"),
        feed_forward=bert.load_feed_forward(config, weights, f"{name}.intermediate.dense", f"{name}.output.dense"),
        feed_forward_norms=bert.load_post_norm(config, weights, f"{name}.output.LayerNorm"),
    )


def load_attention(
    config: ModelConfig, weights: Weights, name: str, positions: Tensor, buckets: Tensor
) -> DisentangledAttention:
    hidden_size, num_heads = config.hidden_size, config.num_heads
    types = read_attention_types(config)
    has_c2p, has_p2c = "c2p" in types, "p2c" in types
    return DisentangledAttention(
        qkv_proj=load_linear(weights, [f"{name}.self.{part}" for part in PROJECTIONS], hidden_size, hidden_size),
        o_proj=load_linear(weights, f"{name}.output.dense", hidden_size, hidden_size),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        pattern=AttentionPattern(),
        scale=1 / math.sqrt(config.head_dim * (1 + len(types))),
        position_keys=project_positions(config, weights, f"{name}.self", "key", positions) if has_c2p else None,
        position_queries=project_positions(config, weights, f"{name}.self", "query", positions) if has_p2c else None,
        num_buckets=len(positions),
        buckets=buckets,
    )


def read_attention_types(config: ModelConfig) -> set[str]:
    """A subset of c2p and p2c."""
    stated = config.get("pos_att_type", [])
    types = stated.lower().split("|") if isinstance(stated, str) else stated
    return {name.strip() for name in types} & {"c2p", "p2c"}


def project_positions(config: ModelConfig, weights: Weights, name: str, role: str, positions: Tensor) -> Tensor:
    """The embeddings of buckets as keys or queries, [heads, head_dim, buckets]. The projection may be that of
    tokens."""
    hidden_size = config.hidden_size
    projection = f"{name}.{role}_proj" if config.get("share_att_key", False) else f"{name}.pos_{role}_proj"
    weight = load_dequantized(weights, projection, [hidden_size, hidden_size], torch.float32)
    bias = weights.load(f"{projection}.bias", [hidden_size], torch.float32)
    projected = positions if positions.is_meta else functional.linear(positions, weight, bias)
    return projected.view(len(positions), config.num_heads, -1).permute(1, 2, 0).to(weights.dtype).contiguous()


def load_sequence_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    activation = ModelConfig.of(checkpoint).activation("pooler_hidden_act")
    return bert.load_sequence_classification(checkpoint, weights, activation=activation)


HEADS = bert.make_classifiers(load_sequence_classification)
