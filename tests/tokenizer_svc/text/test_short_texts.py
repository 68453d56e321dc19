"""Short texts encoded together give the sequences that each gives alone."""

import random
from collections.abc import Sequence

import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from tests.texts import SENTENCES
from tests.tokenizer_svc.parity import Parity
from tokenizer_svc.text.inputs import Input, Options
from tokenizer_svc.text.sequences import Result
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.text.truncation import Truncation

TEXTS = [*SENTENCES, "a", " ", "the loom", "nul\0", "Zoë 東京 🎉", "one two three " * 40]
PAIRS: list[Input] = [(text, other) for text, other in zip(TEXTS, [*TEXTS[1:], ""], strict=True)]
OPTIONS = [
    Options(),
    Options(Truncation.LEFT, tokens_max=7),
    Options(Truncation.REFUSE, tokens_max=7),
    Options(prompt="the loom: ", prompt_tokens=3),
]


def to_comparable(result: Result) -> object:
    return (result.kind, result.message) if isinstance(result, HeddleError) else result


def encode_alone(tokenizer: Tokenizer, inputs: Sequence[Input], options: Options) -> list[object]:
    """Encodes each input beside bytes, which keeps it off the path of short texts."""
    found: list[object] = []
    for content in inputs:
        [sequences] = tokenizer.encode([([content, b""], options)])
        found.append(to_comparable(next(iter(sequences))))
    return found


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("inputs", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_texts_together_give_the_sequences_of_each_alone(parity: Parity, inputs: list[Input], options: Options) -> None:
    tokenizer = parity.ours
    [together] = tokenizer.encode([(inputs, options)])
    assert list(map(to_comparable, together)) == encode_alone(tokenizer, inputs, options)


def test_requests_of_every_kind_share_a_call(parity: Parity) -> None:
    rng = random.Random(0)
    kinds: list[list[Input]] = [list(TEXTS), PAIRS, [*TEXTS, b"\1\0\0\0"], ["\ud800", "fine"], [], ["", "a"]]
    work = [(rng.choice(kinds), rng.choice(OPTIONS)) for _ in range(12)]
    for (inputs, options), sequences in zip(work, parity.ours.encode(work), strict=True):
        assert list(map(to_comparable, sequences)) == encode_alone(parity.ours, inputs, options)


def test_a_text_that_cannot_be_encoded_fails_alone(word_piece: Tokenizer) -> None:
    [sequences] = word_piece.encode([(["fine", "\ud800", "fine too"], Options())])
    assert list(sequences.errors) == [1]
    assert sequences.errors[1].kind is ErrorKind.INVALID_INPUT
    assert list(map(to_comparable, sequences))[::2] == encode_alone(word_piece, ["fine", "fine too"], Options())
