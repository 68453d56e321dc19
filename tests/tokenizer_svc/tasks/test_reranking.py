"""Rerank: scores in the order of the documents, sigmoid or raw, and the prompts of decoders."""

import json
from pathlib import Path

import numpy as np
import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2 as pb
from tests.kinds import write_reranker
from tests.texts import SENTENCES
from tests.tokenizer_svc.fake_engine import FakeEngine
from tests.tokenizer_svc.tasks.conftest import Serve
from tests.tokenizer_svc.tasks.simulated_logits import TOKENS_MAX, logits_of, minilm_tokenizer

QUERY = "What is the capital of Greece?"
LONG = "Athens is a city. " * 300


def write_qwen3(folder: Path) -> Path:
    """A decoder with a prompt. Its tokenizer is still MiniLM's."""
    write_reranker(folder)
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "qwen3",
        "_name_or_path": "Qwen/Qwen3-Reranker-0.6B",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("raw_scores", [True, False])
async def test_scores_are_those_of_the_pairs_in_the_order_of_the_documents(serve: Serve, raw_scores: bool) -> None:
    client = await serve(write_reranker)
    documents = [*SENTENCES, LONG, "", "nul\0 in it", "\0"]
    response = await client.rerank(pb.RerankRequest(query=QUERY, documents=documents, raw_scores=raw_scores))
    logits = np.concatenate([logits_of(1, QUERY, document) for document in documents])
    expected = logits if raw_scores else 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(np.frombuffer(response.scores, "<f4"), expected, rtol=1e-6)
    assert response.usage.truncated_inputs == 1
    assert response.usage.tokens == sum(
        min(len(minilm_tokenizer()([QUERY], [document])["input_ids"][0]), TOKENS_MAX) for document in documents
    )


async def test_each_document_is_cut_to_the_limit_of_the_request(serve: Serve) -> None:
    client = await serve(write_reranker)
    request = pb.RerankRequest(query=QUERY, documents=["one two three four", "one"], raw_scores=True)
    request.document_tokens_max = 2
    response = await client.rerank(request)
    expected = np.concatenate([logits_of(1, QUERY, document) for document in ("one two", "one")])
    np.testing.assert_allclose(np.frombuffer(response.scores, "<f4"), expected, rtol=1e-6)
    assert response.usage.truncated_inputs == 1


async def test_both_texts_are_cut_if_the_request_limits_them_together(serve: Serve) -> None:
    client = await serve(write_reranker)
    request = pb.RerankRequest(query="one two three", documents=["one two three"], input_tokens_max=7)
    response = await client.rerank(request)
    assert (response.usage.tokens, response.usage.truncated_inputs) == (7, 1)


BAD_REQUESTS = [
    (pb.RerankRequest(documents=["a"]), ErrorKind.EMPTY_INPUT, "query", "empty"),
    (pb.RerankRequest(query="a"), ErrorKind.EMPTY_INPUT, "documents", "at least one"),
    (
        pb.RerankRequest(query="a", documents=list("1234")),
        ErrorKind.TOO_LARGE,
        "documents",
        "4 inputs, the limit is 3",
    ),
    (
        pb.RerankRequest(query="a", documents=["a"], instruction="b"),
        ErrorKind.INVALID_INPUT,
        "instruction",
        "no instruction",
    ),
    (
        pb.RerankRequest(query="a", documents=["a", LONG], truncation=pb.TRUNCATION_REFUSE),
        ErrorKind.TOO_LARGE,
        "documents[1]",
        "the limit is 256",
    ),
]


async def test_bad_requests_are_refused_by_the_name_of_their_field(serve: Serve) -> None:
    client = await serve(write_reranker, request_inputs_max=3)
    for request, kind, name, words in BAD_REQUESTS:
        with pytest.raises(HeddleError) as caught:
            await client.rerank(request)
        assert (caught.value.kind, caught.value.field) == (kind, name)
        assert words in caught.value.message


def texts_sent(engine: FakeEngine) -> list[str]:
    """The texts of the sequences, decoded by MiniLM's tokenizer."""
    ids = [np.frombuffer(sequence.token_ids, "<u4").tolist() for sequence in engine.sequences]
    return [str(minilm_tokenizer().decode(own)) for own in ids]


@pytest.mark.parametrize(
    ("instruction", "sent"), [("", "given a web search query, retrieve"), ("Find laws", "find laws < query >")]
)
async def test_a_decoder_gets_its_own_prompt(serve: Serve, instruction: str, sent: str) -> None:
    engine = FakeEngine()
    client = await serve(write_qwen3, engine)
    documents = ["my text", "because " * 400]
    await client.rerank(pb.RerankRequest(query="my query", documents=documents, instruction=instruction))
    first, cut = (next(text for text in texts_sent(engine) if word in text) for word in ("my text", "because"))
    for text in (first, cut):
        assert text.startswith("[CLS] < | im _ start | > system judge whether the document meets")
        assert f"< instruct > : {sent}" in text
        assert text.endswith("assistant < think > < / think > [SEP]")
    assert "< query > : my query < document > : my text < | im _ end | >" in first


async def test_the_setting_replaces_the_prompt(serve: Serve) -> None:
    engine = FakeEngine()
    client = await serve(write_reranker, engine, rerank_template="Is {query} in {document}? {instruction}")
    await client.rerank(pb.RerankRequest(query="this", documents=["that"], instruction="Say yes"))
    assert "[CLS] is this in that? say yes [SEP]" in texts_sent(engine)


async def test_predict_adds_no_prompt_for_a_decoder(serve: Serve) -> None:
    engine = FakeEngine()
    client = await serve(write_qwen3, engine)
    await client.predict(pb.PredictRequest(inputs=[pb.TextOrPair(text="this, that")]))
    assert "[CLS] this, that [SEP]" in texts_sent(engine)
