"""The order in which scores are answered over HTTP. Used by the routes that score documents and labels."""

import numpy as np
import numpy.typing as npt


def ranking_of(ranking: bytes, scores: npt.NDArray[np.float32]) -> list[int]:
    """Indices of the scores, best first: the ranking that a tokenizer pod made of the logits, which tells apart what
    rounds to one score. A pod of an earlier version sends none; then equal scores stay in the order of the input."""
    indices = np.frombuffer(ranking, "<u4") if ranking else np.argsort(-scores, kind="stable")
    order: list[int] = indices.tolist()
    return order
