"""What the fake engine computes for texts that transformers' tokenizer encoded, for the tests of tasks."""

from functools import cache

import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from tests.tokenizer_svc.fake_engine import noise
from tokenizer_svc.text.sequences import TokenSequence

TOKENS_MAX = 256


@cache
def minilm_tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(locate(PACKAGED_NAME))


def sequence_of(text: str, pair: str | None = None) -> TokenSequence:
    """Encodes a batch of one, because transformers ignores an empty second text that is not in a batch."""
    encoded = minilm_tokenizer()(
        [text],
        None if pair is None else [pair],
        truncation="longest_first",
        max_length=TOKENS_MAX,
        return_token_type_ids=True,
    )
    token_ids = np.array(encoded["input_ids"][0], "<u4").tobytes()
    types = bytes(encoded["token_type_ids"][0])
    return TokenSequence(token_ids, types if any(types) else b"")


def logits_of(labels: int, text: str, pair: str | None = None) -> npt.NDArray[np.float32]:
    return noise(sequence_of(text, pair), labels)
