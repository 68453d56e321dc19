"""The order in which scores are answered over HTTP. Used by the routes that score documents and labels."""

import numpy as np
import numpy.typing as npt


def best_first(scores: npt.NDArray[np.float32]) -> list[int]:
    """Indices by descending score; equal ones in the order of the input."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order
