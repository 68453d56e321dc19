"""Packed batches of random tokens, and their columns cut into sequences again, for the tests of the models."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine_svc.sequences import Output, PackedBatch
from tests.checkpoints import POSITIONS, VOCABULARY_SIZE
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed

ALL_LENGTHS = (1, 2, 3, 3, 3, 5, 7, 8, 8, 8, 8, 8, 16, 17, 17, 31, 33, POSITIONS, 1, POSITIONS, 2)


def random_batch(
    lengths: Sequence[int],
    *,
    with_types: bool = False,
    output: Output = Output.VECTOR,
    vocabulary_size: int = VOCABULARY_SIZE,
) -> PackedBatch:
    rng = np.random.default_rng(0)
    return packed(
        [
            TokenSequence(
                rng.integers(0, vocabulary_size, length, dtype=np.uint32).tobytes(),
                rng.integers(0, 2, length, dtype=np.uint8).tobytes() if with_types else b"",
                output=output,
            )
            for length in lengths
        ]
    )


def split(column: Any, batch: PackedBatch) -> Sequence[Tensor]:
    return torch.from_numpy(column.astype(np.int64)).split(batch.lengths.tolist())  # type: ignore[no-any-return, no-untyped-call]
