"""Tokenization against the `tokenizers` library and sentence-transformers, and what bad inputs get."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, pre_tokenizers
from tokenizers import Tokenizer as Library

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from heddle.rpc.errors import ErrorKind, HeddleError
from tests.small_tokenizers import small_tokenizer
from tests.texts import varied_texts
from tests.tokenizer_svc.encoding import read_ids
from tests.tokenizer_svc.parity import load_parity
from tokenizer_svc.text.inputs import Input, Options
from tokenizer_svc.text.loading.normalization import add_lower_case
from tokenizer_svc.text.sequences import Result, TokenSequence, pack_ids
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.text.truncation import Truncation

BERT = load_parity("word_piece").ours
MINILM = locate(PACKAGED_NAME)
PROMPTS = {"query": "Represent the query: ", "odd": "what is ☃"}


def kind_of(result: Result) -> ErrorKind:
    assert isinstance(result, HeddleError)
    return result.kind


def encode(tokenizer: Tokenizer, *inputs: Input, options: Options | None = None) -> list[Result]:
    [sequences] = tokenizer.encode([(inputs, options or tokenizer.options())])
    return list(sequences)


def tokenizer_of(library: Library, tokens_max: int = 16, **settings: Any) -> Tokenizer:
    size = settings.pop("vocabulary_size", library.get_vocab_size())
    return Tokenizer(library, sequence_tokens_max=tokens_max, vocabulary_size=size, **settings)


@pytest.fixture(scope="module")
def minilm() -> Tokenizer:
    return Tokenizer.load(Checkpoint.read(MINILM))


class TestPackagedModel:
    def test_equals_transformers_on_varied_texts(self, minilm: Tokenizer) -> None:
        from transformers import AutoTokenizer

        texts = varied_texts(500)
        reference = AutoTokenizer.from_pretrained(MINILM)
        expected = reference(texts, truncation=True, max_length=256, verbose=False)["input_ids"]
        assert [read_ids(result) for result in encode(minilm, *texts)] == expected

    @pytest.mark.slow
    def test_equals_sentence_transformers_with_a_prompt(self) -> None:
        from sentence_transformers import SentenceTransformer

        reference = SentenceTransformer(str(MINILM), device="cpu")
        library = Library.from_file(str(MINILM / "tokenizer.json"))
        ours = tokenizer_of(library, 256, prompts=PROMPTS, include_prompt=False)
        for name, prompt in PROMPTS.items():
            for text in ["hello", " ", "\0nul", "[CLS] hi [SEP]", "word " * 400]:
                expected = reference.preprocess([text], prompt=prompt)
                (result,) = encode(ours, text, options=ours.options(prompt_name=name))
                assert read_ids(result) == expected["input_ids"][0].tolist()
                assert isinstance(result, TokenSequence)
                assert result.prompt_tokens == expected["prompt_length"]

    def test_ignores_truncation_and_padding_stored_in_the_file(self, minilm: Tokenizer) -> None:
        short, long = encode(minilm, "hello", "hello " * 200)
        assert len(read_ids(short)) == 3
        assert len(read_ids(long)) == 202


class TestLoad:
    def test_limit_without_room_for_text_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no room"):
            tokenizer_of(small_tokenizer("word_piece"), 3)

    def test_lower_case_comes_before_other_normalization(self) -> None:
        for kind in ("byte_level", "unigram"):
            plain, library = tokenizer_of(small_tokenizer(kind)), small_tokenizer(kind)
            add_lower_case(library)
            lowered = tokenizer_of(library)
            assert encode(lowered, "İN Österreich") == encode(plain, "İN Österreich".lower())
            assert encode(lowered, "HELLO") != encode(plain, "HELLO")


class TestTexts:
    @given(text=st.text(min_size=1, max_size=60))
    def test_every_text_is_one_sequence(self, text: str) -> None:
        (result,) = encode(BERT, text)
        assert 2 <= len(read_ids(result)) <= BERT.sequence_tokens_max

    def test_special_tokens_in_text_are_special(self, word_piece: Tokenizer) -> None:
        assert read_ids(encode(word_piece, "[CLS] a [SEP]")[0])[:2] == [2, 2]

    def test_nul_is_text(self, word_piece: Tokenizer) -> None:
        assert encode(word_piece, "a\0b") == encode(word_piece, "ab")

    def test_empty_text_is_refused_beside_good_ones(self, word_piece: Tokenizer) -> None:
        good, empty, pair, right = encode(word_piece, "a", "", ("", "b"), ("a", ""))
        assert kind_of(empty) is kind_of(pair) is ErrorKind.EMPTY_INPUT
        assert read_ids(good)[1:-1] == read_ids(right)[1:-2]

    def test_text_without_tokens_is_empty(self) -> None:
        library = small_tokenizer("byte_level")
        library.pre_tokenizer = pre_tokenizers.Whitespace()
        library.post_processor = None
        assert kind_of(encode(tokenizer_of(library), "  ")[0]) is ErrorKind.EMPTY_INPUT

    def test_lone_surrogate_fails_alone(self, word_piece: Tokenizer) -> None:
        first, bad, pair, last = encode(word_piece, "a", "b\ud800", ("a", "\udfff"), "a")
        assert isinstance(bad, HeddleError)
        assert (bad.kind, "character 1" in bad.message) == (ErrorKind.INVALID_INPUT, True)
        assert kind_of(pair) is ErrorKind.INVALID_INPUT
        assert first == last == encode(word_piece, "a")[0]

    def test_text_that_the_library_rejects_fails_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        library = Library(models.WordLevel({"a": 0}, unk_token="[UNK]"))
        library.pre_tokenizer = pre_tokenizers.Whitespace()
        with caplog.at_level(logging.WARNING):
            good, bad = encode(tokenizer_of(library), "a a", "a b")
        assert read_ids(good) == [0, 0]
        assert kind_of(bad) is ErrorKind.INVALID_INPUT

    def test_text_with_a_token_that_the_model_lacks_fails_alone(self) -> None:
        library = small_tokenizer("word_piece")
        library.add_tokens([AddedToken("[NEW]")])
        good, bad = encode(tokenizer_of(library, vocabulary_size=library.get_vocab_size() - 1), "a", "a [NEW]")
        assert kind_of(bad) is ErrorKind.INVALID_INPUT
        assert len(read_ids(good)) == 3

    def test_type_ids_are_left_out_when_all_are_zero(self, word_piece: Tokenizer) -> None:
        single, pair = encode(word_piece, "a", ("a", "b"))
        assert isinstance(single, TokenSequence)
        assert isinstance(pair, TokenSequence)
        assert (single.type_ids, pair.type_ids) == (b"", bytes([0, 0, 0, 1, 1]))


class TestPrompts:
    def test_prompt_is_put_before_texts_but_not_before_ids(self) -> None:
        tokenizer = tokenizer_of(small_tokenizer("word_piece"), 64, prompts=PROMPTS)
        options = tokenizer.options(prompt_name="query")
        prompted = encode(tokenizer, "a", ("a", "b"), pack_ids([5]), options=options)
        assert prompted == encode(tokenizer, PROMPTS["query"] + "a", (PROMPTS["query"] + "a", "b"), pack_ids([5]))

    def test_empty_text_is_refused_even_with_a_prompt(self) -> None:
        tokenizer = tokenizer_of(small_tokenizer("word_piece"), prompts=PROMPTS, default_prompt_name="query")
        assert kind_of(encode(tokenizer, "")[0]) is ErrorKind.EMPTY_INPUT

    def test_default_prompt_applies_if_none_is_named(self) -> None:
        tokenizer = tokenizer_of(small_tokenizer("word_piece"), prompts=PROMPTS, default_prompt_name="query")
        assert tokenizer.options() == tokenizer.options(prompt_name="query")
        assert tokenizer.options(prompt_name="odd").prompt == PROMPTS["odd"]

    def test_unknown_name_is_refused_with_those_that_exist(self) -> None:
        tokenizer = tokenizer_of(small_tokenizer("word_piece"), prompts=PROMPTS)
        with pytest.raises(HeddleError, match="odd, query") as caught:
            tokenizer.options(prompt_name="passage")
        assert (caught.value.kind, caught.value.field) == (ErrorKind.INVALID_INPUT, "prompt_name")

    def test_prompt_tokens_are_counted_only_if_pooling_leaves_them_out(self) -> None:
        without = tokenizer_of(small_tokenizer("word_piece"), 64, prompts=PROMPTS, include_prompt=False).options(
            prompt_name="query"
        )
        with_it = tokenizer_of(small_tokenizer("word_piece"), 64, prompts=PROMPTS).options(prompt_name="query")
        prompt = small_tokenizer("word_piece").encode(PROMPTS["query"]).ids
        assert (without.prompt_tokens, with_it.prompt_tokens) == (len(prompt) - 1, 0)

    def test_truncation_from_the_left_takes_the_prompt_first(self) -> None:
        tokenizer = tokenizer_of(small_tokenizer("word_piece"), 24, prompts={"q": "a a a a"}, include_prompt=False)
        options = tokenizer.options(Truncation.LEFT, "q")
        results = encode(tokenizer, "e " * 18, "e " * 20, "e " * 90, "e " * 9000, options=options)
        assert [result.prompt_tokens for result in results if isinstance(result, TokenSequence)] == [5, 3, 1, 1]


class TestTokenIds:
    def test_taken_as_they_are(self, word_piece: Tokenizer) -> None:
        assert encode(word_piece, pack_ids([7, 9])) == [TokenSequence(pack_ids([7, 9]))]

    @pytest.mark.parametrize(
        ("token_ids", "kind"),
        [
            (b"", ErrorKind.EMPTY_INPUT),
            (b"\1\0\0", ErrorKind.INVALID_INPUT),
            (pack_ids([5, 400]), ErrorKind.INVALID_INPUT),
            (pack_ids([2**32 - 1]), ErrorKind.INVALID_INPUT),
        ],
    )
    def test_bad_ids_fail_alone(self, word_piece: Tokenizer, token_ids: bytes, kind: ErrorKind) -> None:
        bad, good = encode(word_piece, token_ids, pack_ids([399]))
        assert kind_of(bad) is kind
        assert read_ids(good) == [399]

    def test_truncation_keeps_the_special_tokens_of_the_caller(self, word_piece: Tokenizer) -> None:
        body = list(range(10, 40))
        for lead, trail in (([2], [3]), ([2], []), ([], [3]), ([], [])):
            ids, room = pack_ids(lead + body + trail), 16 - len(lead) - len(trail)
            right, left, refused = (
                encode(word_piece, ids, options=word_piece.options(truncation))[0] for truncation in Truncation
            )
            assert read_ids(right) == lead + body[:room] + trail
            assert read_ids(left) == lead + body[-room:] + trail
            assert kind_of(refused) is ErrorKind.TOO_LARGE

    def test_ids_of_a_long_text_are_cut_as_the_text_is(self, word_piece: Tokenizer) -> None:
        text = " ".join(varied_texts(20))
        ids = pack_ids(load_parity("word_piece").library.encode(text).ids)
        for side in (Truncation.RIGHT, Truncation.LEFT):
            of_text, of_ids = encode(word_piece, text, ids, options=word_piece.options(side))
            assert of_text == of_ids


class TestTokenize:
    @given(text=st.text(max_size=40))
    def test_byte_offsets_are_those_of_the_slices(self, text: str) -> None:
        content = text.encode()
        for token in BERT.tokenize(text):
            if not token.special:
                assert content[token.start_byte : token.end_byte].decode() == token.text

    def test_offsets_of_characters_of_several_bytes(self) -> None:
        tokens = BERT.tokenize("é 🎉 字")
        assert [(token.text, token.start_byte, token.end_byte, token.special) for token in tokens] == [
            ("[CLS]", 0, 0, True),
            ("é", 0, 2, False),
            ("🎉", 3, 7, False),
            ("字", 8, 11, False),
            ("[SEP]", 0, 0, True),
        ]

    def test_special_tokens_can_be_left_out(self) -> None:
        assert [token.text for token in BERT.tokenize("a", skip_special_tokens=True)] == ["a"]

    def test_offsets_count_from_the_text_and_not_from_the_prompt(self) -> None:
        tokens = BERT.tokenize("a 字", prompt="a ", skip_special_tokens=True)
        assert [(token.start_byte, token.end_byte) for token in tokens] == [(0, 0), (0, 1), (2, 5)]

    def test_long_texts_are_not_cut(self) -> None:
        assert len(BERT.tokenize("a " * 5000)) == 5002

    def test_lone_surrogate_is_refused(self) -> None:
        with pytest.raises(HeddleError, match="surrogate"):
            BERT.tokenize("\ud800")

    def test_text_that_the_library_cannot_encode_is_refused(self) -> None:
        library = Library(models.WordPiece({"a": 0}, unk_token="[UNK]"))  # which the vocabulary lacks
        tokenizer = Tokenizer(library, sequence_tokens_max=8, vocabulary_size=1)
        with pytest.raises(HeddleError, match="cannot encode this text") as caught:
            tokenizer.tokenize("☃")
        assert caught.value.kind is ErrorKind.INVALID_INPUT


class TestDecode:
    def test_gives_the_text_back(self) -> None:
        tokenizer = tokenizer_of(small_tokenizer("byte_level"), 64)
        text = "The naïve 🎉 fox, 字!"
        (result,) = encode(tokenizer, text)
        assert isinstance(result, TokenSequence)
        assert tokenizer.decode(result.token_ids) == text
        assert tokenizer.decode(result.token_ids, keep_special_tokens=True) == f"<s>{text}</s>"

    def test_no_ids_are_no_text(self, word_piece: Tokenizer) -> None:
        assert word_piece.decode(b"") == ""

    def test_ids_outside_the_vocabulary_are_refused(self, word_piece: Tokenizer) -> None:
        with pytest.raises(HeddleError, match="400"):
            word_piece.decode(pack_ids([400]))
