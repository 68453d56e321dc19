"""Sample texts are tokenized like the requests to a model."""

from dataclasses import replace
from pathlib import Path

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import locate
from tests.kinds import write_reranker
from tokenizer_svc.text.rerank_prompts import PROMPTS
from tokenizer_svc.text.samples import tokenize_samples
from tokenizer_svc.text.tokenizer import Tokenizer

TEXTS = ["How tall is the tower?", "The tower is 300 metres tall.", "Bread is baked in an oven."]


def test_samples_equal_requests_and_are_cut() -> None:
    checkpoint = Checkpoint.read(locate("all-MiniLM-L6-v2"))
    tokenizer = Tokenizer.load(checkpoint)
    [expected] = tokenizer.encode([(TEXTS, tokenizer.options())])
    assert tokenize_samples(checkpoint, TEXTS).token_ids == expected.token_ids
    assert list(tokenize_samples(checkpoint, TEXTS, 5).lengths) == [5, 5, 5]


def test_the_default_prompt_comes_first() -> None:
    checkpoint = replace(
        Checkpoint.read(locate("all-MiniLM-L6-v2")), prompts={"query": "find: "}, default_prompt_name="query"
    )
    tokenizer = Tokenizer.load(checkpoint)
    [expected] = tokenizer.encode([(["find: bread"], replace(tokenizer.options(), prompt="", prompt_tokens=0))])
    assert tokenize_samples(checkpoint, ["bread"]).token_ids == expected.token_ids


def test_a_reranker_gets_pairs_of_neighbouring_texts(tmp_path: Path) -> None:
    checkpoint = Checkpoint.read(write_reranker(tmp_path / "model"))
    texts = ["w1 w2", "w3", "w4 w5"]
    tokenizer = Tokenizer.load(checkpoint)
    pairs = [("w1 w2", "w3"), ("w3", "w4 w5"), ("w4 w5", "w1 w2")]
    [expected] = tokenizer.encode([(pairs, tokenizer.options())])
    found = tokenize_samples(checkpoint, texts)
    assert (found.token_ids, found.type_ids) == (expected.token_ids, expected.type_ids)
    assert any(found.type_ids)


def test_the_prompt_of_a_decoder_is_around_its_pairs(tmp_path: Path) -> None:
    checkpoint = Checkpoint.read(write_reranker(tmp_path / "model"), name="BAAI/bge-reranker-v2-gemma")
    checkpoint = replace(checkpoint, config={**checkpoint.config, "model_type": "gemma"})
    tokenizer = Tokenizer.load(checkpoint)
    pair = PROMPTS["bge-reranker-gemma"].fill("w1 w2", "w1 w2")
    [expected] = tokenizer.encode([([pair], tokenizer.options())])
    assert tokenize_samples(checkpoint, ["w1 w2"]).token_ids == expected.token_ids


def test_a_text_that_fails_does_not_fail_the_others() -> None:
    found = tokenize_samples(Checkpoint.read(locate("all-MiniLM-L6-v2")), ["fine", "\ud800"])
    assert list(found.errors) == [1]
    assert list(found.lengths) == [3, 0]
