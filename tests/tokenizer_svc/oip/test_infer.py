"""ModelInfer against a pod: the answers are those of heddle.v1, for each kind of model and each form of request."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heddle import tensors
from heddle.v1 import inference_pb2 as pb
from tests.kinds import (
    EMOTIONS,
    write_classifier,
    write_multi_vector_embedder,
    write_reranker,
    write_sparse_embedder,
    write_token_classifier,
)
from tests.tokenizer_svc.oip.calls import array, infer, integers, stub_of, texts
from tests.tokenizer_svc.tei.served_model import TOKENS_MAX, ServedModel, served
from tests.tokenizer_svc.tei.served_model import texts as heddle_texts

TEXTS = ("warp and weft", "naïve 🙂")
LONG = " ".join(f"thread{number}" for number in range(TOKENS_MAX))


@pytest.fixture
async def embedder(tmp_path: Path) -> AsyncIterator[ServedModel]:
    async with served(tmp_path) as model:
        yield model


@pytest.fixture
async def reranker(tmp_path: Path) -> AsyncIterator[ServedModel]:
    async with served(tmp_path, write_reranker) as model:
        yield model


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("shape", [[2], [2, 1], [1, 2]])
async def test_vectors_are_those_of_heddle_v1(embedder: ServedModel, raw: bool, shape: list[int]) -> None:
    response = await stub_of(embedder).ModelInfer(infer(texts("text", *TEXTS, shape=shape), raw=raw))
    expected = await embedder.heddle.Embed(pb.EmbedRequest(inputs=heddle_texts(*TEXTS)))
    assert (response.model_name, response.model_version, response.id) == ("small", "1", "7")
    assert [(output.name, output.datatype) for output in response.outputs] == [("embeddings", "FP32")]
    assert np.array_equal(array(response, "embeddings"), tensors.from_proto(expected.embeddings))
    assert bool(response.raw_output_contents) is raw
    assert response.parameters["tokens"].int64_param == expected.usage.tokens


async def test_parameters_have_the_meaning_of_the_fields_of_heddle_v1(embedder: ServedModel) -> None:
    wanted: dict[str, Any] = {"prompt_name": "query", "dimensions": 8}
    request = infer(texts("text", LONG), normalize=False, truncate=True, truncation_side="left", **wanted)
    expected = await embedder.heddle.Embed(
        pb.EmbedRequest(
            inputs=heddle_texts(LONG),
            skip_normalization=True,
            truncation=pb.TRUNCATION_ALLOW,
            truncation_side=pb.TRUNCATION_SIDE_LEFT,
            **wanted,
        )
    )
    response = await stub_of(embedder).ModelInfer(request)
    assert np.array_equal(array(response, "embeddings"), tensors.from_proto(expected.embeddings))
    assert response.parameters["truncated_inputs"].int64_param == 1


@pytest.mark.parametrize("datatype", ["INT32", "INT64", "UINT32", "UINT64"])
@pytest.mark.parametrize("raw", [False, True])
async def test_token_ids_make_the_vectors_of_their_texts(embedder: ServedModel, datatype: str, raw: bool) -> None:
    tokenized = await embedder.heddle.Tokenize(pb.TokenizeRequest(inputs=["warp and weft", "warp"]))
    rows = [[token.id for token in result.tokens] for result in tokenized.results]
    width = max(map(len, rows))
    right = [row + [0] * (width - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    ids = (integers("input_ids", right, datatype), integers("attention_mask", mask, datatype))
    response = await stub_of(embedder).ModelInfer(infer(*ids, raw=raw))
    by_text = await stub_of(embedder).ModelInfer(infer(texts("text", "warp and weft", "warp")))
    assert np.array_equal(array(response, "embeddings"), array(by_text, "embeddings"))


@pytest.mark.parametrize("raw", [False, True])
async def test_documents_get_the_scores_of_heddle_v1(reranker: ServedModel, raw: bool) -> None:
    inputs = (texts("query", "warp"), texts("documents", *TEXTS, ""))
    response = await stub_of(reranker).ModelInfer(infer(*inputs, raw=raw))
    expected = await reranker.heddle.Rerank(pb.RerankRequest(query="warp", documents=[*TEXTS, ""]))
    assert np.array_equal(array(response, "scores"), np.frombuffer(expected.scores, "<f4"))
    raw_scores = await stub_of(reranker).ModelInfer(infer(*inputs, raw_scores=True))
    assert (array(raw_scores, "scores") != array(response, "scores")).all()


async def test_an_embedder_reranks_by_cosine_if_it_may(tmp_path: Path) -> None:
    async with served(tmp_path, rerank_by_cosine=True) as model:
        response = await stub_of(model).ModelInfer(infer(texts("query", "warp"), texts("documents", *TEXTS)))
        expected = await model.heddle.Rerank(pb.RerankRequest(query="warp", documents=TEXTS))
        assert np.array_equal(array(response, "scores"), np.frombuffer(expected.scores, "<f4"))


async def test_texts_and_pairs_are_classified(tmp_path: Path) -> None:
    async with served(tmp_path, write_classifier) as model:
        for tensor, inputs in (
            (texts("text", *TEXTS), [pb.TextOrPair(text=text) for text in TEXTS]),
            (texts("text", *TEXTS, shape=[1, 2]), [pb.TextOrPair(text=TEXTS[0], pair=TEXTS[1])]),
        ):
            response = await stub_of(model).ModelInfer(infer(tensor))
            expected = await model.heddle.Predict(pb.PredictRequest(inputs=inputs))
            scores = np.frombuffer(expected.scores, "<f4").reshape(len(inputs), len(EMOTIONS))
            assert np.array_equal(array(response, "scores"), scores)


async def test_token_type_ids_tell_the_texts_of_a_pair_apart(tmp_path: Path) -> None:
    async with served(tmp_path, write_classifier) as model:
        ids, types = [[101, 2543, 102, 2544, 102]], [[0, 0, 0, 1, 1]]
        inputs = (integers("input_ids", ids), integers("token_type_ids", types))
        response = await stub_of(model).ModelInfer(infer(*inputs))
        tokenized = pb.TokenizedInput(token_ids=np.array(ids, "<u4").tobytes(), type_ids=bytes(types[0]))
        expected = await model.heddle.Predict(pb.PredictRequest(inputs=[pb.TextOrPair(tokenized=tokenized)]))
        assert array(response, "scores").tobytes() == expected.scores


@pytest.mark.parametrize("raw", [False, True])
async def test_sparse_vectors_are_their_entries_end_to_end(tmp_path: Path, raw: bool) -> None:
    async with served(tmp_path, write_sparse_embedder) as model:
        response = await stub_of(model).ModelInfer(infer(texts("text", *TEXTS), raw=raw))
        expected = await model.heddle.EmbedSparse(pb.EmbedSparseRequest(inputs=heddle_texts(*TEXTS)))
        assert array(response, "lengths").tolist() == [len(one.indices) // 4 for one in expected.embeddings]
        assert array(response, "indices").tobytes() == b"".join(one.indices for one in expected.embeddings)
        assert array(response, "values").tobytes() == b"".join(one.values for one in expected.embeddings)


async def test_each_token_has_a_vector_in_a_multi_vector_model(tmp_path: Path) -> None:
    async with served(tmp_path, write_multi_vector_embedder) as model:
        request = infer(texts("text", *TEXTS), outputs=["lengths", "embeddings"])
        response = await stub_of(model).ModelInfer(request)
        expected = await model.heddle.EmbedTokens(pb.EmbedTokensRequest(inputs=heddle_texts(*TEXTS)))
        assert [output.name for output in response.outputs] == ["lengths", "embeddings"]
        assert array(response, "lengths").tolist() == [one.shape[0] for one in expected.embeddings]
        rows = np.concatenate([tensors.from_proto(one) for one in expected.embeddings])
        assert np.array_equal(array(response, "embeddings"), rows)


async def test_entities_are_a_list_for_each_text(tmp_path: Path) -> None:
    async with served(tmp_path, write_token_classifier) as model:
        request = infer(texts("text", *TEXTS), aggregation="simple")
        (output,) = (await stub_of(model).ModelInfer(request)).outputs
        expected = await model.heddle.PredictTokens(
            pb.PredictTokensRequest(inputs=TEXTS, aggregation=pb.AGGREGATION_SIMPLE)
        )
        found = [json.loads(element) for element in output.contents.bytes_contents]
        assert (list(output.shape), output.datatype) == ([2], "BYTES")
        assert [[entity["text"] for entity in one] for one in found] == [
            [entity.text for entity in one.entities] for one in expected.results
        ]
        assert any(found)
