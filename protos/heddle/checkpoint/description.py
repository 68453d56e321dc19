"""Describes a checkpoint to other services, as far as an engine pod and its tokenizer pods must agree on it.

An engine sends the description with more (heddle.v1.Model). A tokenizer compares it with its own.
"""

from heddle.checkpoint.checkpoint import Checkpoint
from heddle.v1 import model_pb2


def describe_checkpoint(checkpoint: Checkpoint) -> model_pb2.Model:
    return model_pb2.Model(
        name=checkpoint.name,
        kind=f"MODEL_KIND_{checkpoint.kind.name}",
        tokenizer_fingerprint=checkpoint.tokenizer_fingerprint,
        dimension=checkpoint.dimension,
        labels=checkpoint.labels,
        pooling="+".join(mode.value for mode in checkpoint.pooling),
    )
