"""MPNet: RoBERTa whose attention also minds how far apart two tokens are, in buckets that widen with the distance."""

import math

import torch
from torch import Tensor

from engine_svc.models.architectures import bert, roberta
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.transformer import Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint.checkpoint import get_max_positions

PREFIX = "mpnet."

NAMES = bert.LayerNames(
    query_key_value=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
)

BUCKETS = 32  # half of them for keys before the query; transformers has no other number, whatever the config says
FARTHEST = 128  # distances from here on share the last bucket


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError."""
    config.require("relative_attention_num_buckets", BUCKETS)
    embeddings = bert.load_embeddings(config, weights, has_types=False)
    pattern = AttentionPattern(bias=load_bias(config, weights))
    return Transformer(embeddings, bert.load_layers(config, weights, NAMES, pattern))


def load_bias(config: ModelConfig, weights: Weights) -> Tensor:
    """One for all layers."""
    heads = config.positive("num_attention_heads")
    table = weights.take("encoder.relative_attention_bias.weight", [BUCKETS, heads], torch.float32)
    longest = get_max_positions(config.values) or 1
    distances = torch.arange(1 - longest, longest)
    return table[bucket_of(distances).to(table.device)].T.contiguous()


def bucket_of(distances: Tensor) -> Tensor:
    """As T5 has them for attention in both directions. int64, of int64 distances of a key from its query."""
    sides = BUCKETS // 2
    near = sides // 2  # so many distances have a bucket each
    steps = distances.abs()
    widening = (steps.float() / near).log() / math.log(FARTHEST / near) * (sides - near)
    far = near + widening.clamp(min=0).long()
    return torch.where(steps < near, steps, far.clamp(max=sides - 1)) + torch.where(distances > 0, sides, 0)


HEADS = roberta.HEADS
UNUSED = roberta.UNUSED
