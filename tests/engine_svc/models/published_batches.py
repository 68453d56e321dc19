"""A batch of random tokens for a published checkpoint, with lengths that exceed its sliding window."""

import numpy as np

from engine_svc.batch import PackedBatch
from heddle.checkpoint import Checkpoint
from tests.engine_svc.models.cases import OUTPUTS
from tests.engine_svc.models.published_checkpoints import VOCABULARY, Published
from tests.engine_svc.models.published_code import has_types
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed

# The longest exceeds every sliding window, and has distances that share a bucket.
LENGTHS = (1, 2, 3, 17, 64, 150)


def random_batch(published: Published, checkpoint: Checkpoint) -> PackedBatch:
    """Ids without the padding id, which has no position in some models."""
    rng = np.random.default_rng(0)
    padding = checkpoint.config.get("pad_token_id")
    choices = np.array([token for token in range(VOCABULARY) if token != padding], np.uint32)
    with_types = has_types(checkpoint.config)
    sequences = [
        TokenSequence(
            rng.choice(choices, length).tobytes(),
            rng.integers(0, 2, length, dtype=np.uint8).tobytes() if with_types else b"",
            output=OUTPUTS[published.kind],
        )
        for length in LENGTHS
    ]
    return packed(sequences)
