"""What a model folder says of itself, and where the folder comes from. The tokenizer and the engine read it."""

from heddle.checkpoint.checkpoint import Checkpoint, ModelKind

__all__ = ["Checkpoint", "ModelKind"]
