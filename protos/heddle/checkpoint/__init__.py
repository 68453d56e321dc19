"""Reads model folders, and finds or downloads them. Used by the tokenizer and the engine."""

from heddle.checkpoint.checkpoint import Checkpoint, ModelKind

__all__ = ["Checkpoint", "ModelKind"]
