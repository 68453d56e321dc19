"""A backend whose logits are so high that their sigmoid is 1.0 in float32, for tests of the order of scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import tokenizers

from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from tests.sequences import sequences_of

# Logits by the word of a text. Their order is neither ascending nor descending.
LOGIT_OF = {"wool": 23.1, "silk": 20.0, "linen": 28.0, "cotton": 22.7, "leather": 20.6, "lace": 24.9}
WORDS = list(LOGIT_OF)
BEST_FIRST = [2, 5, 0, 3, 4, 1]


@dataclass(frozen=True)
class HighLogits(SimulatedBackend):
    """Returns the logit of the text's word, or of its first words if there are several labels."""

    outputs: frozenset[Output] = frozenset({Output.LOGITS})
    dimension: int = 1
    fixed_us: int = 0

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        logits = np.array(list(LOGIT_OF.values()), np.float32)
        if self.dimension > 1:
            return {Output.LOGITS: Rows(np.tile(logits[: self.dimension], (len(batch), 1)))}
        ids = [word_id(word) for word in WORDS]
        found = [np.isin(ids, np.frombuffer(one.token_ids, "<u4")).argmax() for one in sequences_of(batch)]
        return {Output.LOGITS: Rows(logits[found][:, None])}


@cache
def word_id(word: str) -> int:
    found = tokenizers.Tokenizer.from_file(str(locate(PACKAGED_NAME) / "tokenizer.json")).token_to_id(word)
    assert found is not None, word
    return found
