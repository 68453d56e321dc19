"""Tokenized inputs of Rerank, Predict and PredictTokens give the results of their texts. They are never cut, and are
refused beside texts."""

from typing import Any

import numpy as np
import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2 as pb
from tests.kinds import TAGS, write_classifier, write_reranker, write_token_classifier
from tests.texts import SENTENCES
from tests.tokenizer_svc.tasks.conftest import Serve
from tests.tokenizer_svc.tasks.simulated_logits import TOKENS_MAX, minilm_tokenizer, sequence_of

QUERY = "What is the capital of Greece?"


def ids_of(text: str, pair: str | None = None) -> pb.TokenizedInput:
    sequence = sequence_of(text, pair)
    return pb.TokenizedInput(token_ids=sequence.token_ids, type_ids=sequence.type_ids)


def ids(*token_ids: int, **more: Any) -> pb.TokenizedInput:
    return pb.TokenizedInput(token_ids=np.array(token_ids, "<u4").tobytes(), **more)


async def test_pairs_of_ids_are_reranked_as_their_texts(serve: Serve) -> None:
    client = await serve(write_reranker)
    texts = await client.rerank(pb.RerankRequest(query=QUERY, documents=SENTENCES))
    found = await client.rerank(pb.RerankRequest(tokenized_inputs=[ids_of(QUERY, document) for document in SENTENCES]))
    assert (found.scores, found.ranking) == (texts.scores, texts.ranking)
    assert found.usage.tokens == texts.usage.tokens
    bare = [pb.TokenizedInput(token_ids=ids_of(QUERY, document).token_ids) for document in SENTENCES]
    assert (await client.rerank(pb.RerankRequest(tokenized_inputs=bare))).scores != texts.scores  # type ids matter


async def test_texts_pairs_and_ids_are_classified_side_by_side(serve: Serve) -> None:
    client = await serve(write_classifier)
    texts = [pb.TextOrPair(text=SENTENCES[0]), pb.TextOrPair(text=SENTENCES[1], pair=SENTENCES[2])]
    as_ids = [pb.TextOrPair(tokenized=ids_of(*SENTENCES[:1])), pb.TextOrPair(tokenized=ids_of(*SENTENCES[1:3]))]
    response = await client.predict(pb.PredictRequest(inputs=texts + as_ids))
    first, second, third, fourth = np.frombuffer(response.scores, "<f4").reshape(4, -1)
    np.testing.assert_array_equal((first, second), (third, fourth))


@pytest.mark.parametrize("raw_scores", [False, True])
async def test_tokens_of_ids_are_labelled_as_those_of_their_text_and_spelled_by_the_vocabulary(
    serve: Serve, raw_scores: bool
) -> None:
    client = await serve(write_token_classifier)
    whole = await client.predict_tokens(pb.PredictTokensRequest(inputs=SENTENCES, raw_scores=raw_scores))
    found = await client.predict_tokens(
        pb.PredictTokensRequest(tokenized_inputs=[ids_of(text) for text in SENTENCES], raw_scores=raw_scores)
    )
    for text, expected, result in zip(SENTENCES, whole.results, found.results, strict=True):
        assert [entity.scores for entity in result.entities] == [entity.scores for entity in expected.entities]
        assert len(result.entities[0].scores) == (len(TAGS) if raw_scores else 1)
        assert [entity.token_id for entity in result.entities] == [entity.token_id for entity in expected.entities]
        spellings = minilm_tokenizer().convert_ids_to_tokens(minilm_tokenizer()(text)["input_ids"])
        assert [entity.text for entity in result.entities] == spellings
        assert not any(entity.start_char or entity.end_char for entity in result.entities)


def of_rerank(*items: pb.TokenizedInput, **more: Any) -> pb.RerankRequest:
    return pb.RerankRequest(tokenized_inputs=items, **more)


LONG = ids(*[101] * (TOKENS_MAX + 1))
BAD_RERANKS = [
    (of_rerank(ids(101), query="a"), ErrorKind.INVALID_INPUT, "tokenized_inputs", "both"),
    (of_rerank(ids(101), documents=["a"]), ErrorKind.INVALID_INPUT, "tokenized_inputs", "both"),
    (of_rerank(ids(101), instruction="a"), ErrorKind.INVALID_INPUT, "tokenized_inputs", "both"),
    (of_rerank(ids(101), document_tokens_max=2), ErrorKind.INVALID_INPUT, "document_tokens_max", "cannot be cut"),
    (of_rerank(*[ids(101)] * 4), ErrorKind.TOO_LARGE, "tokenized_inputs", "4 inputs, the limit is 3"),
    (of_rerank(ids(101), ids()), ErrorKind.EMPTY_INPUT, "tokenized_inputs[1]", "no token ids"),
    (of_rerank(ids(30522)), ErrorKind.INVALID_INPUT, "tokenized_inputs[0]", "outside the model's vocabulary"),
    (of_rerank(pb.TokenizedInput(token_ids=b"123")), ErrorKind.INVALID_INPUT, "tokenized_inputs[0]", "whole number"),
    (
        of_rerank(ids(101), ids(101, 102, type_ids=b"\1")),
        ErrorKind.INVALID_INPUT,
        "tokenized_inputs[1]",
        "one byte per",
    ),
    (of_rerank(ids(101, type_ids=b"\2")), ErrorKind.INVALID_INPUT, "tokenized_inputs[0]", "0 or 1"),
    (of_rerank(LONG), ErrorKind.TOO_LARGE, "tokenized_inputs[0]", f"the limit is {TOKENS_MAX}"),
    (
        of_rerank(LONG, truncation=pb.TRUNCATION_ALLOW),
        ErrorKind.TOO_LARGE,
        "tokenized_inputs[0]",
        f"the limit is {TOKENS_MAX}",
    ),
]


async def test_bad_sequences_are_refused_by_the_name_of_their_field(serve: Serve) -> None:
    client = await serve(write_reranker, request_inputs_max=3)
    for request, kind, name, words in BAD_RERANKS:
        with pytest.raises(HeddleError) as caught:
            await client.rerank(request)
        assert (caught.value.kind, caught.value.field) == (kind, name), request
        assert words in caught.value.message


async def test_a_pair_beside_ids_is_refused(serve: Serve) -> None:
    client = await serve(write_classifier)
    for mixed in (pb.TextOrPair(text="a", tokenized=ids(101)), pb.TextOrPair(pair="a", tokenized=ids(101))):
        with pytest.raises(HeddleError, match="both") as caught:
            await client.predict(pb.PredictRequest(inputs=[pb.TextOrPair(text="a"), mixed]))
        assert (caught.value.kind, caught.value.field) == (ErrorKind.INVALID_INPUT, "inputs[1]")


async def test_entities_of_ids_are_refused_in_words(serve: Serve) -> None:
    client = await serve(write_token_classifier)
    for request, field in (
        (pb.PredictTokensRequest(tokenized_inputs=[ids(101)], aggregation=pb.AGGREGATION_MAX), "aggregation"),
        (pb.PredictTokensRequest(tokenized_inputs=[ids(101)], inputs=["a"]), "tokenized_inputs"),
    ):
        with pytest.raises(HeddleError) as caught:
            await client.predict_tokens(request)
        assert (caught.value.kind, caught.value.field) == (ErrorKind.INVALID_INPUT, field)


async def test_limits_of_the_request_refuse_ids_that_are_longer(serve: Serve) -> None:
    client = await serve(write_reranker)
    pair = [ids_of(QUERY, SENTENCES[0])]
    with pytest.raises(HeddleError) as refusal:
        await client.rerank(pb.RerankRequest(tokenized_inputs=pair, input_tokens_max=5))
    assert (refusal.value.kind, refusal.value.field) == (ErrorKind.TOO_LARGE, "tokenized_inputs[0]")
    with pytest.raises(HeddleError) as refusal:
        await client.rerank(pb.RerankRequest(tokenized_inputs=pair, document_tokens_max=5))
    assert (refusal.value.kind, refusal.value.field) == (ErrorKind.INVALID_INPUT, "document_tokens_max")
