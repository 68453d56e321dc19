"""Turns logits and vectors into scores and rankings. Pure functions; the tasks call them."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ranking = npt.NDArray[np.uint32]


def sigmoid(logits: Floats) -> Floats:
    """Of each element. Overflows nowhere: exp is taken of what is not positive only."""
    wide = logits.astype(np.float64)
    decay = np.exp(-np.abs(wide))
    scores: Floats = (np.where(wide >= 0, 1.0, decay) / (1.0 + decay)).astype(np.float32)
    return scores


def softmax(logits: Floats) -> Floats:
    """Over the last axis, in float32, step by step as in transformers.pipelines.token_classification."""
    exponentials = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    scores: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return scores


def best_first(logits: Floats) -> Ranking:
    """Indices along the last axis, by descending logit; equal logits keep their order. It takes logits instead of
    scores, because many logits round to the same score: the sigmoid is 1.0 in float32 from about 17 on."""
    ranking: Ranking = np.argsort(-logits, axis=-1, kind="stable").astype("<u4")
    return ranking


def cosines(one: Floats, many: Floats) -> Floats:
    """Between [dimension] and each row of [rows, dimension]: float32 [rows]; 0 where a vector has no direction."""
    source, rows = one.astype(np.float64), many.astype(np.float64)
    lengths = np.linalg.norm(source) * np.linalg.norm(rows, axis=-1)
    products = rows @ source
    cosine = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    scores: Floats = cosine.clip(-1.0, 1.0).astype(np.float32)
    return scores
