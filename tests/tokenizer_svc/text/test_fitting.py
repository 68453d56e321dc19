"""The limits that a request sets, for a sequence and for a document alone."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heddle.rpc.errors import ErrorKind, HeddleError
from tests.small_tokenizers import BUILDERS, small_tokenizer
from tests.texts import SENTENCES
from tests.tokenizer_svc.encoding import encode_one
from tests.tokenizer_svc.parity import TOKENS_MAX, load_parity
from tests.tokenizer_svc.text.test_truncation import long_text
from tokenizer_svc.text.inputs import Input, Options, PromptedPair, Role
from tokenizer_svc.text.sequences import TokenSequence, pack_ids
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.text.truncation import Truncation

WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})
SIDES = st.sampled_from((Truncation.RIGHT, Truncation.LEFT))

kinds = st.sampled_from(list(BUILDERS))
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=20).map(" ".join)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(kind=kinds, second=texts, side=SIDES, document_tokens_max=st.integers(1, 8))
def test_a_document_is_cut_before_it_is_joined_with_the_query(
    kind: str, second: str, side: Truncation, document_tokens_max: int
) -> None:
    parity = load_parity(kind)
    around = len(parity.library.encode("a", ""))
    tokens_max = around + document_tokens_max
    expected = parity.expected("a", second, side, tokens_max=tokens_max, strategy="only_second")
    options = Options(side, document_tokens_max=document_tokens_max)
    if expected.tokens <= TOKENS_MAX:
        assert encode_one(parity.ours, ("a", second), options) == expected


@pytest.mark.parametrize("side", [Truncation.RIGHT, Truncation.LEFT])
@pytest.mark.parametrize("kind", BUILDERS)
def test_a_long_document_keeps_the_same_tokens(kind: str, side: Truncation) -> None:
    text = long_text(3)
    ours, library = load_parity(kind).ours, load_parity(kind).library
    ids = library.encode("a", text)
    of_document = [token_id for token_id, number in zip(ids.ids, ids.sequence_ids, strict=True) if number == 1]
    left = of_document[:4] if side is Truncation.RIGHT else of_document[-4:]
    result = encode_one(ours, ("a", text), Options(side, document_tokens_max=4))
    assert isinstance(result, TokenSequence)
    assert result.truncated
    assert pack_ids(left) in result.token_ids
    assert result.tokens == len(library.encode("a", "")) + 4


def test_the_document_limit_does_not_apply_to_the_first_text() -> None:
    ours = load_parity("word_piece").ours
    pair = ("a a a a", "a")
    assert encode_one(ours, pair, Options(document_tokens_max=1)) == encode_one(ours, pair, Options())


@pytest.mark.parametrize("side", [Truncation.RIGHT, Truncation.LEFT])
def test_only_the_document_of_a_prompt_is_cut(side: Truncation) -> None:
    library = small_tokenizer("bare")
    ours = Tokenizer(library, sequence_tokens_max=200, vocabulary_size=library.get_vocab_size())
    document = long_text(5, 30)
    ids = library.encode(document).ids

    def fill(text: str) -> PromptedPair:
        return PromptedPair(
            (((Role.PROMPT, "query:"),), ((Role.QUERY, "a"),), ((Role.DOCUMENT, text),), ((Role.PROMPT, "?"),))
        )

    result = encode_one(ours, fill(document), Options(side, document_tokens_max=7))
    left = ids[:7] if side is Truncation.RIGHT else ids[-7:]
    expected = library.encode("query:").ids + library.encode("a").ids + left + library.encode("?").ids
    assert result == TokenSequence(pack_ids(expected), truncated=True)
    whole = encode_one(ours, fill("a a"), Options(side, document_tokens_max=7))
    assert whole == encode_one(ours, fill("a a"), Options(side))
    short = encode_one(ours, fill(document), Options(side, document_tokens_max=7, tokens_max=len(expected) - 2))
    left = ids[:5] if side is Truncation.RIGHT else ids[-5:]
    expected = library.encode("query:").ids + library.encode("a").ids + left + library.encode("?").ids
    assert short == TokenSequence(pack_ids(expected), truncated=True)


def test_token_ids_keep_as_many_as_the_request_allows() -> None:
    ours = load_parity("word_piece").ours
    result = encode_one(ours, pack_ids([2, 10, 11, 12, 13, 3]), Options(tokens_max=4))
    assert result == TokenSequence(pack_ids([2, 10, 11, 3]), truncated=True)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a b c d e", Options(Truncation.REFUSE, tokens_max=5), "the input has 7 tokens, the limit is 5 tokens"),
        (
            ("a", "a b c d e"),
            Options(Truncation.REFUSE, document_tokens_max=4),
            "the document has 5 tokens, the limit is 4 tokens",
        ),
        (pack_ids([2, 9, 9, 3]), Options(Truncation.REFUSE, tokens_max=3), "the input has 4 tokens, the limit is 3"),
    ],
)
def test_a_refusal_states_the_limit(content: Input, options: Options, message: str) -> None:
    result = encode_one(load_parity("word_piece").ours, content, options)
    assert isinstance(result, HeddleError)
    assert result.kind is ErrorKind.TOO_LARGE
    assert result.message.startswith(message)


@pytest.mark.parametrize(("content", "specials"), [("a b", 2), (("a", "b"), 3), (pack_ids([2, 9, 3]), 2)])
def test_a_limit_that_leaves_no_room_for_text_is_invalid_input(content: Input, specials: int) -> None:
    result = encode_one(load_parity("word_piece").ours, content, Options(tokens_max=specials))
    assert isinstance(result, HeddleError)
    assert result.kind is ErrorKind.INVALID_INPUT
    assert f"{specials} special tokens" in result.message


def test_pooling_leaves_out_only_the_prompt_tokens_that_remain() -> None:
    library = small_tokenizer("word_piece")
    ours = Tokenizer(
        library,
        sequence_tokens_max=16,
        vocabulary_size=library.get_vocab_size(),
        prompts={"query": "one two three four five "},
        include_prompt=False,
    )
    made = ours.options(prompt_name="query")
    result = encode_one(ours, "text", Options(prompt=made.prompt, prompt_tokens=made.prompt_tokens, tokens_max=4))
    assert isinstance(result, TokenSequence)
    assert result.tokens == 4
    assert result.prompt_tokens == 3
