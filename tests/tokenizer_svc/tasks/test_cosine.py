"""Reranking with an embedder, if the setting allows it: cosines, prompts, ranking, and refused fields."""

import json
from pathlib import Path

import numpy as np
import pytest

from heddle import tensors
from heddle.client import InferenceClient
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2 as pb
from tests.kinds import write_config
from tests.texts import SENTENCES
from tests.tokenizer_svc.tasks.conftest import Serve

QUERY = "which cloth"


def write_embedder(folder: Path, **prompts: str) -> Path:
    write_config(folder, "BertModel", ())
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder


async def cosines(client: InferenceClient, query_prompt: str = "", document_prompt: str = "") -> np.ndarray:
    (query,) = await client.vectors([QUERY], prompt_name=query_prompt)
    found: np.ndarray = await client.vectors(SENTENCES, prompt_name=document_prompt) @ query
    return found


@pytest.mark.parametrize(
    ("prompts", "query", "document"),
    [
        ({}, "", ""),
        ({"query": "Ask: "}, "query", ""),
        ({"query": "Ask: ", "document": "Say: "}, "query", "document"),
        ({"query": "Ask: ", "passage": "Say: "}, "query", "passage"),
    ],
)
async def test_scores_are_cosines_under_the_prompts_that_the_model_has(
    serve: Serve, prompts: dict[str, str], query: str, document: str
) -> None:
    client = await serve(lambda folder: write_embedder(folder, **prompts), rerank_by_cosine=True)
    expected = await cosines(client, query, document)
    for raw_scores in (False, True):
        answer = await client.rerank(pb.RerankRequest(query=QUERY, documents=SENTENCES, raw_scores=raw_scores))
        scores = np.frombuffer(answer.scores, "<f4")
        assert np.allclose(scores, expected, atol=1e-6)
        assert np.array_equal(np.frombuffer(answer.ranking, "<u4"), np.argsort(-scores, kind="stable"))
    assert answer.usage.tokens > len(SENTENCES)


def write_embedder_with_tasks(folder: Path) -> Path:
    """Writes the tasks in the form of jina-embeddings-v3."""
    write_embedder(folder)
    path = folder / "config.json"
    instructions = {"retrieval.query": "Ask: ", "retrieval.passage": "Say: "}
    tasks = {"lora_adaptations": [*instructions, "separation"], "task_instructions": instructions}
    path.write_text(json.dumps({**json.loads(path.read_text()), **tasks}))
    return folder


async def test_adapters_for_queries_and_for_documents_compute_them(serve: Serve) -> None:
    client = await serve(write_embedder_with_tasks, rerank_by_cosine=True)

    async def embedded(texts: list[str], task: str) -> np.ndarray:
        inputs = [pb.Input(text=text) for text in texts]
        return tensors.from_proto((await client.embed(pb.EmbedRequest(inputs=inputs, task=task))).embeddings)

    query, documents = await embedded([QUERY], "retrieval.query"), await embedded(SENTENCES, "retrieval.passage")
    answer = await client.rerank(pb.RerankRequest(query=QUERY, documents=SENTENCES))
    assert np.allclose(np.frombuffer(answer.scores, "<f4"), documents @ query[0], atol=1e-6)


async def test_one_empty_document_has_a_score_too(serve: Serve) -> None:
    client = await serve(write_embedder, rerank_by_cosine=True)
    answer = await client.rerank(pb.RerankRequest(query=QUERY, documents=["a", "", "b"]))
    scores = np.frombuffer(answer.scores, "<f4")
    alone = np.frombuffer((await client.rerank(pb.RerankRequest(query=QUERY, documents=[""]))).scores, "<f4")
    assert np.isfinite(scores).all()
    assert scores[1] == pytest.approx(alone[0], abs=1e-6)


async def test_fields_of_rerankers_are_refused_by_name(serve: Serve) -> None:
    client = await serve(write_embedder, rerank_by_cosine=True)
    cases = [
        (pb.RerankRequest(query=QUERY, documents=["a"], instruction="b"), "instruction", ErrorKind.INVALID_INPUT),
        (pb.RerankRequest(query=QUERY, documents=["a"], document_tokens_max=8), "document_tokens_max", None),
        (pb.RerankRequest(tokenized_inputs=[pb.TokenizedInput(token_ids=b"abcd")]), "tokenized_inputs", None),
        (pb.RerankRequest(query="", documents=["a"]), "query", ErrorKind.EMPTY_INPUT),
        (pb.RerankRequest(query=QUERY), "documents", ErrorKind.EMPTY_INPUT),
        (
            pb.RerankRequest(query=QUERY, documents=["a", "b " * 999], truncation=pb.TRUNCATION_REFUSE),
            "documents[1]",
            ErrorKind.TOO_LARGE,
        ),
    ]
    for request, field, kind in cases:
        with pytest.raises(HeddleError) as refused:
            await client.rerank(request)
        assert (refused.value.field, refused.value.kind) == (field, kind or ErrorKind.INVALID_INPUT)
    fine = pb.RerankRequest(query=QUERY, documents=["a"], document_tokens_max=4096)
    assert len((await client.rerank(fine)).scores) == 4


async def test_without_the_setting_an_embedder_does_not_rerank(serve: Serve) -> None:
    client = await serve(write_embedder)
    with pytest.raises(HeddleError) as refused:
        await client.rerank(pb.RerankRequest(query=QUERY, documents=["a"]))
    assert refused.value.kind is ErrorKind.WRONG_TASK
