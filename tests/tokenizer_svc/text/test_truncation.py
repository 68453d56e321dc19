"""Truncation keeps the tokens that transformers keeps: on both sides, of texts and pairs, however long."""

import random
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Encoding
from tokenizers import Tokenizer as Library

from heddle.rpc.errors import ErrorKind, HeddleError
from tests.small_tokenizers import BUILDERS
from tests.texts import NEARLY_NOTHING, SENTENCES
from tests.tokenizer_svc.encoding import encode_one
from tests.tokenizer_svc.parity import TOKENS_MAX, Parity, load_parity
from tokenizer_svc.text.inputs import Options
from tokenizer_svc.text.long_texts import take_window
from tokenizer_svc.text.sequences import TokenSequence
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.text.truncation import Truncation, longest_first, truncate_pair, truncate_text

WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()} | {"[CLS]", "</s>", "<bos>", "x" * 120})
SIDES = (Truncation.RIGHT, Truncation.LEFT)

words = st.sampled_from(WORDS) | st.sampled_from(NEARLY_NOTHING) | st.text(min_size=1, max_size=6)
texts = st.builds(
    lambda parts, glue: glue.join(parts), st.lists(words, min_size=1, max_size=30), st.sampled_from(" \n")
)
sides = st.sampled_from(SIDES)
kinds = st.sampled_from(list(BUILDERS))


def long_text(seed: int, count: int = 3000) -> str:
    rng = random.Random(seed)
    glue = rng.choice([" ", "\n", "  ", " \t"])
    return glue.join(rng.choices(WORDS + NEARLY_NOTHING, k=count))


def encode(tokenizer: Tokenizer, content: Any, side: Truncation, tokens_max: int = 0) -> TokenSequence | HeddleError:
    return encode_one(tokenizer, content, Options(side, tokens_max=tokens_max))


class Watched:
    """The library's tokenizer, which counts the characters that it is given."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.chars = 0

    def encode_batch_fast(self, texts: list[Any]) -> list[Encoding]:
        self.chars += sum(len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts)
        return self.library.encode_batch_fast(texts)


def watch(parity: Parity, monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched(parity.library)
    encoder: Any = parity.ours._long_texts
    monkeypatch.setattr(parity.ours, "_long_texts", replace(encoder, library=watched))
    return watched


@pytest.fixture
def watched(parity: Parity, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return watch(parity, monkeypatch)


class TestAgainstTransformers:
    """The limit is the model's, or a smaller one of the request."""

    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(kind=kinds, text=texts, side=sides, tokens_max=st.integers(3, TOKENS_MAX + 4))
    def test_single_texts(self, kind: str, text: str, side: Truncation, tokens_max: int) -> None:
        parity = load_parity(kind)
        expected = parity.expected(text, None, side, tokens_max=min(tokens_max, TOKENS_MAX))
        result = encode(parity.ours, text, side, tokens_max)
        assert result == expected or (isinstance(result, HeddleError) and not expected.tokens)

    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(kind=kinds, first=texts, second=texts | st.just(""), side=sides, tokens_max=st.integers(6, TOKENS_MAX))
    def test_pairs(self, *, kind: str, first: str, second: str, side: Truncation, tokens_max: int) -> None:
        parity = load_parity(kind)
        expected = parity.expected(first, second, side, tokens_max=tokens_max)
        result = encode(parity.ours, (first, second), side, tokens_max)
        assert result == expected or (isinstance(result, HeddleError) and not expected.tokens)

    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(kind=kinds, text=texts)
    def test_refuses_exactly_what_would_be_truncated(self, kind: str, text: str) -> None:
        parity = load_parity(kind)
        length, limit = len(parity.library.encode(text).ids), parity.ours.sequence_tokens_max
        result = encode(parity.ours, text, Truncation.REFUSE)
        if length > limit:
            assert isinstance(result, HeddleError)
            assert result.kind is ErrorKind.TOO_LARGE
            assert re.search(rf"{length} tokens.*{limit} tokens", result.message)
        elif length:
            assert result == parity.expected(text, None, Truncation.RIGHT)


class TestLongTexts:
    @pytest.mark.parametrize("side", SIDES)
    @pytest.mark.parametrize("seed", range(6))
    def test_a_window_gives_the_tokens_of_the_whole_text(
        self, parity: Parity, watched: Watched, seed: int, side: Truncation
    ) -> None:
        text = long_text(seed)
        assert encode(parity.ours, text, side) == parity.expected(text, None, side)
        assert watched.chars < len(text) / 2

    @pytest.mark.parametrize("side", SIDES)
    @pytest.mark.parametrize("seed", range(3))
    def test_windows_of_a_pair_give_the_tokens_of_the_whole_texts(
        self, parity: Parity, watched: Watched, seed: int, side: Truncation
    ) -> None:
        short, long = "a short query", long_text(seed)
        for pair in ((short, long), (long, short)):
            assert encode(parity.ours, pair, side) == parity.expected(*pair, side)
        assert watched.chars < len(long)

    def test_a_word_of_a_hundred_thousand_characters(self, parity: Parity) -> None:
        text = "start " + "x" * 100_000 + " end"
        assert encode(parity.ours, text, Truncation.RIGHT) == parity.expected(text, None, Truncation.RIGHT)

    def test_text_without_spaces(self, parity: Parity, watched: Watched) -> None:
        text = "机器学习模型需要大量的数据。" * 1000
        assert encode(parity.ours, text, Truncation.RIGHT) == parity.expected(text, None, Truncation.RIGHT)
        assert watched.chars <= 163_840

    @pytest.mark.parametrize("text", ["word " * 2_000_000, "x" * 10_000_000, " " * 10_000_000, "字" * 3_000_000])
    @pytest.mark.parametrize("truncation", Truncation)
    def test_most_of_ten_megabytes_is_never_looked_at(
        self, text: str, truncation: Truncation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parity = load_parity("word_piece")
        watched = watch(parity, monkeypatch)
        result = encode(parity.ours, text, truncation)
        assert watched.chars <= 250_000
        if truncation is Truncation.REFUSE:
            assert isinstance(result, HeddleError)
            assert result.kind is ErrorKind.TOO_LARGE
        else:
            assert isinstance(result, TokenSequence)
            assert result.truncated

    def test_text_after_many_spaces_is_found(self, parity: Parity) -> None:
        text = "start" + " " * 30_000 + "end"
        assert encode(parity.ours, text, Truncation.RIGHT) == parity.expected(text, None, Truncation.RIGHT)


class TestWindow:
    @given(text=st.text(alphabet="ab \n", max_size=60), chars=st.integers(4, 40), side=sides)
    def test_is_one_end_of_the_text_and_of_bounded_length(self, text: str, chars: int, side: Truncation) -> None:
        shown = take_window(text, chars, side)
        assert text.endswith(shown) if side is Truncation.LEFT else text.startswith(shown)
        assert min(chars, len(text)) <= len(shown) <= chars + chars // 4

    def test_ends_at_a_space(self) -> None:
        assert take_window("aaaa bbbb cccc", 8, Truncation.RIGHT) == "aaaa bbbb"
        assert take_window("aaaa bbbb cccc", 8, Truncation.LEFT) == " bbbb cccc"


class TestSpans:
    @given(first=st.integers(0, 30), second=st.integers(0, 30), room=st.integers(0, 40))
    def test_the_longer_text_of_a_pair_is_cut_to_fill_the_room(self, first: int, second: int, room: int) -> None:
        kept_first, kept_second = longest_first(first, second, room)
        assert kept_first + kept_second == min(room, first + second)
        assert 0 <= kept_first <= first
        assert 0 <= kept_second <= second
        if kept_first < first and kept_second < second:
            assert abs(kept_first - kept_second) <= 1

    @given(
        text=st.integers(0, 30), room=st.integers(0, 40), lead=st.integers(0, 2), trail=st.integers(0, 2), side=sides
    )
    def test_special_tokens_stay(self, text: int, room: int, lead: int, trail: int, side: Truncation) -> None:
        tokens = lead + text + trail
        kept = [index for span in truncate_text(tokens, room, lead, trail, side) for index in range(*span)]
        assert kept[:lead] == list(range(lead))
        assert kept[len(kept) - trail :] == list(range(tokens - trail, tokens))
        assert len(kept) == lead + min(text, room) + trail

    @given(first=st.integers(0, 20), second=st.integers(0, 20), room=st.integers(0, 30), side=sides)
    def test_special_tokens_of_a_pair_stay(self, first: int, second: int, room: int, side: Truncation) -> None:
        specials = (1, 2, 1)
        kept = {index for span in truncate_pair(first, second, room, specials, side) for index in range(*span)}
        assert {0, 1 + first, 2 + first, 3 + first + second} <= kept
        assert len(kept) == sum(specials) + min(room, first + second)
