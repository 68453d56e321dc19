"""Every request of the contract has a task. The error for a task that the model lacks names the tasks that it has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2 as pb
from tests.kinds import (
    write_classifier,
    write_multi_vector_embedder,
    write_reranker,
    write_sparse_embedder,
    write_token_classifier,
)
from tests.tokenizer_svc.tasks.conftest import Serve
from tests.tokenizer_svc.tei.served_model import write_embedder
from tokenizer_svc.servicer import InferenceServicer
from tokenizer_svc.tasks.table import TASKS

TEXT = [pb.Input(text="a")]
REQUESTS: dict[str, Any] = {
    "embed": pb.EmbedRequest(inputs=TEXT),
    "embed_tokens": pb.EmbedTokensRequest(inputs=TEXT),
    "embed_sparse": pb.EmbedSparseRequest(inputs=TEXT),
    "rerank": pb.RerankRequest(query="a", documents=["b"]),
    "predict": pb.PredictRequest(inputs=[pb.TextOrPair(text="a")]),
    "predict_tokens": pb.PredictTokensRequest(inputs=["a"]),
    "similarity": pb.SimilarityRequest(source="a", sentences=["b"]),
    "tokenize": pb.TokenizeRequest(inputs=["a"]),
    "decode": pb.DecodeRequest(token_ids=[b""]),
}
ALWAYS = {"tokenize", "decode"}


def test_every_request_of_the_contract_has_a_task_and_a_method() -> None:
    of_contract = {field.name for field in pb.InferenceItem.DESCRIPTOR.oneofs_by_name["request"].fields}
    assert TASKS.keys() == of_contract == REQUESTS.keys()
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["InferenceService"].methods}
    assert methods <= vars(InferenceServicer).keys()


@pytest.mark.parametrize(
    ("write", "served", "words"),
    [
        (
            write_embedder,
            {"embed", "embed_tokens", "similarity"},
            (
                "mine is an embedder: it cannot rerank documents, "
                "but it can make dense vectors of texts, make vectors of tokens and compare texts; "
                "the tokenizer's setting rerank_by_cosine lets it rerank by cosine"
            ),
        ),
        (
            write_multi_vector_embedder,
            {"embed_tokens"},
            "mine is a multi vector embedder: it cannot rerank documents, but it can make vectors of tokens",
        ),
        (
            write_sparse_embedder,
            {"embed_sparse"},
            "mine is a sparse embedder: it cannot rerank documents, but it can make sparse vectors of texts",
        ),
        (write_reranker, {"rerank", "predict"}, ""),
        (
            write_classifier,
            {"predict"},
            "mine is a classifier: it cannot rerank documents, but it can classify whole texts",
        ),
        (
            write_token_classifier,
            {"predict_tokens"},
            "mine is a token classifier: it cannot rerank documents, but it can label the tokens of texts",
        ),
    ],
)
async def test_a_model_does_the_tasks_of_its_kind_and_names_them_otherwise(
    serve: Serve, write: Callable[[Path], Path], served: set[str], words: str
) -> None:
    client = await serve(write)
    refusals: dict[str, HeddleError] = {}
    for name, request in REQUESTS.items():
        try:
            await client.infer(pb.InferenceItem(**{name: request}))
        except HeddleError as error:
            refusals[name] = error
    assert {error.kind for error in refusals.values()} == {ErrorKind.WRONG_TASK}
    assert REQUESTS.keys() - refusals.keys() == served | ALWAYS
    assert "rerank" not in refusals or refusals["rerank"].message == words


def test_no_description_of_a_task_contains_another() -> None:
    """An error names a task that the model lacks beside the tasks that it has: they must be distinct."""
    for one in TASKS.values():
        for other in TASKS.values():
            assert one is other or one.description not in other.description


async def test_another_model_is_not_found_by_any_task(serve: Serve) -> None:
    client = await serve(write_classifier)
    for name, request in REQUESTS.items():
        asked = type(request)()
        asked.CopyFrom(request)
        asked.model = "other"
        with pytest.raises(HeddleError) as caught:
            await client.infer(pb.InferenceItem(**{name: asked}))
        assert (caught.value.kind, caught.value.field) == (ErrorKind.MODEL_NOT_FOUND, "model")
