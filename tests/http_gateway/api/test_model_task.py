"""POST /, /invocations and /vertex run the model's task; Baseten's /predict goes to the default route."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

import httpx
import pytest
from msgspec import Raw
from msgspec.json import Decoder, encode

from heddle.client import CallOptions
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import model_pb2
from http_gateway.api.bounded_gather import INPUTS_IN_FLIGHT_MAX
from http_gateway.api.model_task import ModelTask, VertexBody
from http_gateway.api.served_models import ServedModels
from http_gateway.api.tei_embed import EmbedAllBody
from http_gateway.web.message import Answer, Request
from http_gateway.web.routing import JsonHandler
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.http_gateway.calls import answer_to, make_request, refusal_of
from tests.http_gateway.turns import Turns
from tests.kinds import (
    http_of,
    write_classifier,
    write_multi_vector_embedder,
    write_reranker,
    write_sparse_embedder,
    write_token_classifier,
)

PREDICT = "/environments/production/predict"


@pytest.mark.parametrize("path", ["/", "/invocations"])
async def test_an_embedder_embeds_and_compares(http: httpx.AsyncClient, path: str) -> None:
    assert await answer_to(http, path, inputs=["a", "b"]) == await answer_to(http, "/embed", inputs=["a", "b"])
    assert await answer_to(http, path, input=["a", "b"]) == await answer_to(http, "/v1/embeddings", input=["a", "b"])
    inputs = {"source_sentence": "a", "sentences": ["a", "b"]}
    assert await answer_to(http, path, inputs=inputs) == await answer_to(http, "/similarity", inputs=inputs)


async def test_zero_shot_classification_is_refused_by_name(http: httpx.AsyncClient) -> None:
    body = {"inputs": "a", "parameters": {"candidate_labels": ["sports", "politics"]}}
    assert (await refusal_of(http, "/", **body))[2].startswith("parameters.candidate_labels: zero-shot classification")
    instances = {"instances": [{"inputs": "a"}, body]}
    assert (await refusal_of(http, "/vertex", **instances))[2].startswith("instances[1]: parameters.candidate_labels")


async def test_an_embedder_reranks_if_the_pod_allows_it(tmp_path: Path) -> None:
    body = {"query": "a", "texts": ["b", "a"]}
    async with (
        engine_pod(tmp_path) as engine,
        tokenizer_pod(tmp_path, engine, rerank_by_cosine=True) as tokenizer,
        gateway(tokenizer) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        assert await answer_to(http, "/", **body) == await answer_to(http, "/rerank", **body)
        assert await answer_to(http, "/", inputs="a") == await answer_to(http, "/embed", inputs="a")
        (model,) = (await http.get("/models")).json()["data"]
        assert model["capabilities"] == ["embed", "rerank"]
        limited = {"query": "a", "documents": ["b"], "max_tokens_per_doc": 4}
        assert (await refusal_of(http, "/rerank", **limited))[1:] == (
            "Validation",
            "max_tokens_per_doc: the model is an embedder: it has no limit for documents alone",
        )


@pytest.mark.parametrize(
    ("write", "path", "body"),
    [
        (write_classifier, "/predict", {"inputs": "a"}),
        (write_reranker, "/rerank", {"query": "a", "texts": ["b", "c"]}),
        (write_token_classifier, "/predict_tokens", {"inputs": [["a"]]}),
        (write_sparse_embedder, "/embed_sparse", {"inputs": "a"}),
        (write_multi_vector_embedder, "/embed_all", {"inputs": "a"}),
    ],
)
async def test_other_kinds_run_their_own_task(
    tmp_path: Path, write: Callable[[Path], Path], path: str, body: dict[str, Any]
) -> None:
    async with http_of(tmp_path, write(tmp_path / "model")) as http:
        expected = await answer_to(http, path, **body)
        assert await answer_to(http, "/", **body) == expected
        assert await answer_to(http, "/vertex", instances=[body, body]) == {"predictions": [expected, expected]}


@pytest.mark.parametrize(
    ("write", "path"),
    [
        (write_classifier, "/predict"),
        (write_reranker, "/predict"),
        (write_token_classifier, "/predict_tokens"),
        (write_sparse_embedder, "/embed_sparse"),
        (write_multi_vector_embedder, "/embed_all"),
    ],
)
async def test_the_default_route_follows_the_kind_of_the_model(
    tmp_path: Path, write: Callable[[Path], Path], path: str
) -> None:
    async with http_of(tmp_path, write(tmp_path / "model")) as http:
        assert await answer_to(http, PREDICT, inputs="a") == await answer_to(http, path, inputs="a")


async def test_the_default_route_of_an_embedder_is_openais_unless_configured(
    http: httpx.AsyncClient, tokenizer: str
) -> None:
    expected = await answer_to(http, "/v1/embeddings", input="a")
    for path in (PREDICT, "/production/predict", "/v1/models/model:predict"):
        assert await answer_to(http, path, input="a") == expected
    assert await answer_to(http, "/environments/production/sync/v1/embeddings", input="a") == expected
    async with gateway(tokenizer, default_route="/embed") as url, httpx.AsyncClient(base_url=url) as other:
        assert await answer_to(other, PREDICT, inputs="a") == [expected["data"][0]["embedding"]]
    async with gateway(tokenizer, default_route="/v1/embeddings") as url, httpx.AsyncClient(base_url=url) as other:
        assert await answer_to(other, "/", input="a") == expected


async def test_one_wrong_instance_is_named_and_refuses_the_list(http: httpx.AsyncClient) -> None:
    fine = {"inputs": "a"}
    cases: list[tuple[list[Any], tuple[int, str], str]] = [
        ([fine, {"inputs": ""}], (400, "Empty"), "instances[1]: the text is empty"),
        ([fine, fine, {"inputs": ["a", ""]}], (400, "Empty"), "instances[2]: inputs[1]: the text is empty"),
        ([fine, {"inputs": []}], (400, "Empty"), "instances[1]: inputs is empty"),
        ([{}], (400, "Validation"), "instances[0]: inputs is required"),
        ([fine, 5], (400, "Validation"), "instances[1]: the body: expected object, got int"),
        ([fine, {"inputs": "a", "dimensions": 0}], (400, "Validation"), "instances[1]: dimensions: "),
        ([{"inputs": "long " * 400, "truncate": False}], (413, "Validation"), "instances[0]: the input has 402 tokens"),
    ]
    for instances, expected, beginning in cases:
        refusal = await refusal_of(http, "/vertex", instances=instances)
        assert refusal[:2] == expected, instances
        assert refusal[2].startswith(beginning), refusal
    assert await answer_to(http, "/vertex", instances=[]) == {"predictions": []}


async def test_an_instance_with_invalid_inputs_is_named(tmp_path: Path) -> None:
    async with http_of(tmp_path, write_classifier(tmp_path / "model")) as http:
        refusal = await refusal_of(http, "/vertex", instances=[{"inputs": "a"}, {"inputs": [["a", "b", "c"]]}])
        assert refusal[:2] == (400, "Validation")
        assert refusal[2].startswith("instances[1]: inputs[0] must be a list of one text or a pair of texts")


async def test_the_limit_of_inputs_holds_for_all_instances_together(tokenizer: str) -> None:
    similar = {"inputs": {"source_sentence": "a", "sentences": ["b"] * 3}}
    async with gateway(tokenizer, request_inputs_max=4) as url, httpx.AsyncClient(base_url=url) as http:
        accepted: list[list[Any]] = [[{"inputs": ["a"] * 3}, {"inputs": "a"}], [{"inputs": [101, 102]}] * 4, [similar]]
        for instances in accepted:
            answer = await answer_to(http, "/vertex", instances=instances)
            assert len(answer["predictions"]) == len(instances)
        refused: list[list[Any]] = [
            [{"inputs": ["a"] * 3}, {"inputs": ["a"] * 2}],
            [{"inputs": "a"}] * 5,
            [similar] * 2,
        ]
        for instances in refused:
            refusal = await refusal_of(http, "/vertex", instances=instances)
            assert refusal[:2] == (413, "Validation")
            assert refusal[2].endswith("the limit is 4")
        many = [{"inputs": ["a"]}, {"inputs": []}, {"inputs": [""] * 9}]
        assert (await refusal_of(http, "/vertex", instances=many))[2] == "instances holds 10 inputs, the limit is 4"


def vertex(*instances: Any) -> VertexBody:
    return VertexBody([Raw(encode(instance)) for instance in instances])


class Handler:
    """Counts the calls and the inputs in flight."""

    def __init__(self) -> None:
        self.inputs = self.inputs_most = self.most = self.running = 0
        self.flows: set[str] = set()

    async def __call__(self, body: EmbedAllBody, request: Request) -> Answer:
        self.flows.add(request.options().flow)
        self.running += 1
        self.inputs += body.inputs_count
        self.most, self.inputs_most = max(self.most, self.running), max(self.inputs_most, self.inputs)
        await asyncio.sleep(0.001)
        self.running -= 1
        self.inputs -= body.inputs_count
        return Answer(body.inputs)

    def routes(self) -> ModelTask:
        return ModelTask(cast(ServedModels, OneModel()), 2048, {"/embed": JsonHandler(Decoder(EmbedAllBody), self)})


async def test_instances_are_answered_in_order_and_their_inputs_in_flight_are_bounded() -> None:
    cases = [(1, 2000, INPUTS_IN_FLIGHT_MAX), (200, 10, INPUTS_IN_FLIGHT_MAX // 200), (1000, 2, 1)]
    for inputs, count, most in cases:
        handler = Handler()
        instances = [{"inputs": [str(number)] * inputs} for number in range(count)]
        answer = await handler.routes().run_instances(vertex(*instances), make_request())
        assert list(answer.value["predictions"]) == [instance["inputs"] for instance in instances]
        assert handler.most == most
        assert handler.inputs_most == most * inputs


async def test_a_request_is_one_flow_however_many_instances_it_has() -> None:
    handler = Handler()
    await handler.routes().run_instances(
        vertex(*[{"inputs": "a"}] * 20), make_request(headers={"x-request-id": "mine"})
    )
    assert handler.flows == {"mine"}


async def test_too_many_instances_are_refused_before_any_is_read() -> None:
    models = OneModel()
    routes = ModelTask(cast(ServedModels, models), 2048, {"/embed": JsonHandler(Decoder(EmbedAllBody), Handler())})
    with pytest.raises(HeddleError, match="instances holds 2049 instances, the limit is 2048") as refused:
        await routes.run_instances(vertex(*[{"inputs": []}] * 2049), make_request())
    assert refused.value.kind is ErrorKind.TOO_LARGE
    assert models.asked == 0
    with pytest.raises(HeddleError):
        await routes.run_instances(vertex(*[{"inputs": ["a", "b"]}] * 1025), make_request())
    assert models.asked == 1025


async def test_reading_instances_yields_to_other_requests() -> None:
    body = vertex(*[{"inputs": "a"}] * 1000, {"inputs": ["a"] * 2000})
    with Turns() as turns, pytest.raises(HeddleError):  # the last one has too many inputs
        await Handler().routes().run_instances(body, make_request())
    assert turns.count >= 1000


class OneModel:
    """Stands in for the ServedModels of a gateway with one embedder."""

    asked = 0

    @property
    def client(self) -> Self:
        return self

    def find(self, _: str | None) -> Self:
        return self

    async def get_model(self, _: CallOptions) -> model_pb2.Model:
        self.asked += 1
        return model_pb2.Model(kind=model_pb2.MODEL_KIND_EMBEDDER)
