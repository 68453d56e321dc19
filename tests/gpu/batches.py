"""Batches of random tokens in sequences of equal length, as full as the engine's default settings make them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine_svc.device import GPU_BATCH_TOKENS
from engine_svc.sequences import PackedBatch
from engine_svc.settings import EngineSettings
from tests.gpu.shapes import ModelShape
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed

# Distinct batches rotate, so that no cache can help.
BATCHES = 4
# Ids below are special in some vocabularies.
FIRST_ID = 200


@dataclass(frozen=True)
class Workload:
    tokens: int  # of a sequence
    sequences: int  # of a batch

    def lengths(self) -> Sequence[int]:
        return [self.tokens] * self.sequences

    def batches(self, shape: ModelShape) -> Sequence[PackedBatch]:
        rng = np.random.default_rng(self.tokens)
        size = (self.sequences, self.tokens)
        drawn = (rng.integers(FIRST_ID, shape.config["vocab_size"], size, dtype=np.uint32) for _ in range(BATCHES))
        return [packed([TokenSequence(row.tobytes()) for row in rows]) for rows in drawn]


def full(tokens: int) -> Workload:
    return Workload(tokens, min(GPU_BATCH_TOKENS // tokens, EngineSettings().batch_items_max))


# The last two are small enough for a CUDA graph.
LONG, SHORT, MIDDLE, SINGLE = full(500), full(5), Workload(5, 48), Workload(5, 1)
LONG_DRY, SHORT_DRY, MIDDLE_DRY = Workload(50, 2), Workload(5, 8), Workload(5, 4)


def workloads(*, is_dry: bool) -> Sequence[Workload]:
    return (LONG_DRY, SHORT_DRY, MIDDLE_DRY, SINGLE) if is_dry else (LONG, SHORT, MIDDLE, SINGLE)
