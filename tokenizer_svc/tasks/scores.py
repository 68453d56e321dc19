"""Turns logits into rankings and vectors into cosines. Pure functions; the tasks call them."""

import numpy as np
import numpy.typing as npt

from heddle.tensors import Floats

Ranking = npt.NDArray[np.uint32]


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
