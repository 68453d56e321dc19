"""A query and a document inside a prompt: the ids are those of the models' authors, and the document is cut first."""

import time

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import processors

from heddle.rpc.errors import ErrorKind, HeddleError
from tests.small_tokenizers import small_tokenizer
from tests.texts import varied_texts
from tests.tokenizer_svc.encoding import encode_one, read_ids
from tests.tokenizer_svc.rerank_references import REFERENCES, Ids
from tokenizer_svc.text.inputs import Options, PromptedPair, Role
from tokenizer_svc.text.rerank_prompts import PROMPTS, parse_template
from tokenizer_svc.text.sequences import TokenSequence
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.text.truncation import Truncation

ROOM = 120  # for query and document, beside the prompt
TEXTS = varied_texts(120, seed=8)
INSTRUCTION = "Find what a lawyer would cite"


def library(*, bos: bool = False) -> Library:
    """Like Qwen's: byte-level, with the tokens of chats. With `bos`, a token is put before a text, as for Gemma."""
    tokenizer = small_tokenizer("bare")
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
        )
    return tokenizer


def tokenizer_of(name: str, tokens_max: int) -> Tokenizer:
    own = library(bos=name == "bge-reranker-gemma")
    return Tokenizer(own, sequence_tokens_max=tokens_max, vocabulary_size=own.get_vocab_size())


def reference(name: str, query: str, document: str) -> tuple[Ids, Ids, Ids]:
    """The ids before the query and document, their own ids, and the ids after them."""
    own = library()
    return REFERENCES[name](lambda text: own.encode(text, add_special_tokens=False).ids, query, document, INSTRUCTION)


def fill(name: str, query: str, document: str) -> PromptedPair:
    return PROMPTS[name].fill(query, document, INSTRUCTION)


@pytest.mark.parametrize("name", PROMPTS)
def test_ids_are_those_of_the_models_authors(name: str) -> None:
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    [results] = tokenizer_of(name, 100_000).encode([([fill(name, *pair) for pair in pairs], Options())])
    for pair, result in zip(pairs, results, strict=True):
        before, both, after = reference(name, *pair)
        assert read_ids(result) == before + both + after
        assert isinstance(result, TokenSequence)
        assert not result.truncated


@pytest.mark.parametrize("name", PROMPTS)
def test_a_long_document_loses_its_end_and_the_prompt_stays(name: str) -> None:
    """The authors' code also cuts the pair, and then appends what follows it."""
    before, _, after = reference(name, "", "")
    tokens_max = len(before) + len(after) + ROOM
    texts = [" ".join(TEXTS[start : start + count]) for start in range(5) for count in (30, 110)]
    [results] = tokenizer_of(name, tokens_max).encode([([fill(name, "Why?", text) for text in texts], Options())])
    for text, result in zip(texts, results, strict=True):
        assert read_ids(result) == before + reference(name, "Why?", text)[1][:ROOM] + after
        assert isinstance(result, TokenSequence)
        assert result.truncated


@pytest.mark.parametrize("name", PROMPTS)
def test_truncation_from_the_left_drops_the_beginning_of_the_document(name: str) -> None:
    before, _, after = reference(name, "", "")
    tokens_max = len(before) + len(after) + ROOM
    text = " ".join(f"w{number}" for number in range(1_000))
    options = Options(Truncation.LEFT)
    result = encode_one(tokenizer_of(name, tokens_max), fill(name, "Why?", text), options)
    ids = read_ids(result)
    assert len(ids) == tokens_max
    whole = before + reference(name, "Why?", text)[1] + after
    tail = ROOM // 2
    assert ids[-tail - len(after) :] == whole[-tail - len(after) :]
    assert "Why?" in library().decode(ids, skip_special_tokens=False)


def test_the_query_is_cut_only_if_nothing_is_left_of_the_document() -> None:
    name = "qwen3-reranker"
    before, both, after = reference(name, "", "")
    tokens_max = len(before) + len(both) + len(after) + 30
    query = " ".join(f"q{number}" for number in range(500))
    result = encode_one(tokenizer_of(name, tokens_max), fill(name, query, "never seen"))
    ids = read_ids(result)
    text = library().decode(ids, skip_special_tokens=False)
    assert len(ids) == tokens_max
    assert ids[-len(after) :] == after
    assert "<Query>: q0 q1 q2" in text
    assert "<Document>:" in text
    assert "never" not in text


def test_a_document_of_megabytes_costs_no_more_than_its_window() -> None:
    name = "qwen3-reranker"
    tokenizer = tokenizer_of(name, 400)
    text = "The quick brown fox jumps over the lazy dog. " * 100_000
    began = time.perf_counter()
    result = encode_one(tokenizer, fill(name, "fox?", text))
    assert time.perf_counter() - began < 2.0
    of_a_part = encode_one(tokenizer, fill(name, "fox?", text[:100_000]))
    assert read_ids(result) == read_ids(of_a_part)
    assert len(read_ids(result)) == 400


def test_a_refusal_states_the_limit() -> None:
    result = encode_one(
        tokenizer_of("qwen3-reranker", 300), fill("qwen3-reranker", "a", "b " * 400), Options(Truncation.REFUSE)
    )
    assert isinstance(result, HeddleError)
    assert result.kind is ErrorKind.TOO_LARGE
    assert "the limit is 300 tokens" in result.message


def test_a_prompt_that_is_too_long_by_itself_is_refused() -> None:
    content = PROMPTS["qwen3-reranker"].fill("a", "b", "because " * 500)
    result = encode_one(tokenizer_of("qwen3-reranker", 400), content)
    assert isinstance(result, HeddleError)
    assert result.kind is ErrorKind.TOO_LARGE


def test_a_document_that_is_not_unicode_fails_alone() -> None:
    name = "mxbai-rerank-v2"
    [[bad, good]] = tokenizer_of(name, 1_000).encode([([fill(name, "a", "\ud800"), fill(name, "a", "b")], Options())])
    assert isinstance(bad, HeddleError)
    assert bad.kind is ErrorKind.INVALID_INPUT
    assert isinstance(good, TokenSequence)


def test_braces_in_a_text_are_text() -> None:
    prompt = parse_template("{query} | {document}")
    assert prompt is not None
    assert prompt.fill("{document}", "{query}").texts == ["{document}", " | ", "{query}"]


def test_a_token_that_crosses_into_the_prompt_belongs_to_the_prompt() -> None:
    """An example is "?\\n" in byte-level vocabularies. Cutting it would take the end of a line from the prompt."""
    prompt = parse_template("Q: {query}\nD: {document}\nA:")
    assert prompt is not None
    own = library()
    tokenizer = Tokenizer(own, sequence_tokens_max=24, vocabulary_size=own.get_vocab_size())
    result = encode_one(tokenizer, prompt.fill("why" * 3, "because " * 40))
    text = own.decode(read_ids(result))
    assert text.startswith("Q: whywhywhy\nD: b")
    assert text.endswith("\nA:")


def test_each_part_of_a_segment_has_its_role() -> None:
    parts = PROMPTS["bge-reranker-gemma"].fill("q", "d").segments
    assert parts[0] == ((Role.PROMPT, "A: "), (Role.QUERY, "q"))
    assert parts[2] == ((Role.PROMPT, "B: "), (Role.DOCUMENT, "d"))
