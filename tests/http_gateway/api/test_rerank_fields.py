"""Documents of rerank requests, on every path that reaches a reranker: strings or objects, cut, returned unchanged."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.http_gateway.calls import answer_to, refusal_of
from tests.kinds import write_reranker

QUERY = "which one?"
DOCUMENTS: list[Any] = ["first", {"text": "second", "title": "kept", "page": 7}, "third"]
PATHS = [
    "/rerank",
    "/",
    "/invocations",
    "/environments/production/predict",
    "/v1/models/model:predict",
    "/environments/production/sync/rerank",
]


async def scores_of(http: httpx.AsyncClient, **body: Any) -> dict[int, float]:
    results = (await answer_to(http, "/v2/rerank", query=QUERY, **body))["results"]
    return {result["index"]: result["relevance_score"] for result in results}


@pytest.mark.parametrize("path", PATHS)
async def test_documents_get_the_shape_of_v1_rerank_and_texts_that_of_tei(
    reranker: httpx.AsyncClient, path: str
) -> None:
    options = {"query": QUERY, "top_n": 2, "return_documents": True, "raw_scores": True}
    expected = await answer_to(reranker, "/v1/rerank", documents=DOCUMENTS, **options)
    answer = await answer_to(reranker, path, documents=DOCUMENTS, **options)
    assert {**answer, "id": ""} == {**expected, "id": ""}
    assert len(answer["results"]) == 2
    ranks = await answer_to(reranker, path, query=QUERY, texts=["first", "third"], return_text=True)
    assert {rank["text"] for rank in ranks} == {"first", "third"}


async def test_vertex_instances_may_have_texts_or_documents(reranker: httpx.AsyncClient) -> None:
    instances = [{"query": QUERY, "documents": ["a"]}, {"query": QUERY, "texts": ["a"]}]
    first, second = (await answer_to(reranker, "/vertex", instances=instances))["predictions"]
    assert first["results"] == [{"index": 0, "relevance_score": second[0]["score"]}]


async def test_inputs_of_pairs_go_to_predict(reranker: httpx.AsyncClient) -> None:
    expected = await answer_to(reranker, "/predict", inputs=[["a", "b"]])
    for path in ("/", "/production/predict"):
        assert await answer_to(reranker, path, inputs=[["a", "b"]]) == expected


async def test_the_default_route_takes_no_other_method(reranker: httpx.AsyncClient) -> None:
    assert (await reranker.get("/environments/production/predict")).status_code == 405


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_objects_are_returned_unchanged_and_strings_as_text_objects(
    reranker: httpx.AsyncClient, path: str
) -> None:
    answer = await answer_to(reranker, path, query=QUERY, documents=DOCUMENTS, return_documents=True)
    found = {result["index"]: result["document"] for result in answer["results"]}
    assert found == {0: {"text": "first"}, 1: DOCUMENTS[1], 2: {"text": "third"}}
    bare = await answer_to(reranker, path, query=QUERY, documents=DOCUMENTS)
    assert all(set(result) == {"index", "relevance_score"} for result in bare["results"])


async def test_both_names_of_return_documents_are_accepted_for_texts_and_documents(
    reranker: httpx.AsyncClient,
) -> None:
    for more in ({"return_text": True}, {"return_documents": True}, {"return_text": True, "return_documents": True}):
        ranks = await answer_to(reranker, "/rerank", query=QUERY, texts=["a", "b"], **more)
        assert {rank["text"] for rank in ranks} == {"a", "b"}
        answer = await answer_to(reranker, "/rerank", query=QUERY, documents=["a", "b"], **more)
        assert {result["document"]["text"] for result in answer["results"]} == {"a", "b"}
    both = {"return_text": True, "return_documents": False}
    status, _, message = await refusal_of(reranker, "/rerank", query=QUERY, texts=["a"], **both)
    assert (status, message) == (400, "return_text and return_documents contradict each other: send one of them")


async def test_rank_fields_are_joined_in_their_order(reranker: httpx.AsyncClient) -> None:
    documents = [{"title": "one", "text": "two", "page": 3}, {"text": "two"}, "plain"]
    found = await scores_of(reranker, documents=documents, rank_fields=["page", "text", "title"])
    assert found == await scores_of(reranker, documents=["3\ntwo\none", "two", "plain"])


@pytest.mark.parametrize(
    ("documents", "more", "words"),
    [
        (["a", {"title": "b"}], {}, "documents[1].text is required"),
        ([{"text": 5}], {}, "documents[0].text must be a string"),
        ([{"text": "a"}], {"rank_fields": ["title", "body"]}, "documents[0] has none of the rank_fields: title, body"),
        ([{"text": "a", "id": 10**30}], {"return_documents": True}, "documents[0] cannot be returned"),
        (["a"], {"texts": ["a"]}, "texts or documents is required, and not both"),
        (None, {}, "texts or documents is required"),
        ([], {}, "documents is empty"),
    ],
)
async def test_errors_name_the_document(
    reranker: httpx.AsyncClient, documents: Any, more: dict[str, Any], words: str
) -> None:
    status, _, message = await refusal_of(reranker, "/rerank", query=QUERY, documents=documents, **more)
    assert status == 400
    assert message.startswith(words)


@pytest.mark.parametrize("accept", ["application/json", "application/msgpack"])
async def test_a_document_that_is_nested_too_deeply_for_an_answer_is_400(
    reranker: httpx.AsyncClient, accept: str
) -> None:
    document: dict[str, Any] = {"text": "a"}
    statuses = []
    for _ in range(256):
        document = {"text": "a", "inner": document}
    for _ in range(20):
        document = document["inner"]
        body = {"query": QUERY, "documents": [document], "return_documents": True}
        for path, content in (("/rerank", body), ("/vertex", {"instances": [body]})):
            response = await reranker.post(path, json=content, headers={"accept": accept})
            statuses.append(response.status_code)
    assert set(statuses) == {200, 400}
    assert statuses == sorted(statuses, reverse=True)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_each_document_is_cut_to_max_tokens_per_doc(reranker: httpx.AsyncClient, path: str) -> None:
    body = {"query": QUERY, "documents": ["one two three", "one"]}
    response = await reranker.post(path, json={**body, "max_tokens_per_doc": 2})
    assert response.headers["x-truncated-inputs"] == "1"
    expected = await answer_to(reranker, path, query=QUERY, documents=["one two", "one"])
    assert response.json()["results"] == expected["results"]
    whole = await answer_to(reranker, path, **body)
    for enough in (0, 4096):
        assert (await answer_to(reranker, path, **body, max_tokens_per_doc=enough))["results"] == whole["results"]


async def test_max_tokens_per_doc_allows_truncation_on_a_server_that_refuses_it(tmp_path: Path) -> None:
    named: dict[str, Any] = {"model": str(write_reranker(tmp_path / "model")), "served_model_name": "served"}
    async with (
        engine_pod(tmp_path, **named) as engine,
        tokenizer_pod(tmp_path, engine, truncate=False, **named) as tokenizer,
        gateway(tokenizer) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        expected = await scores_of(http, documents=["one two"])
        assert await scores_of(http, documents=["one two three"], max_tokens_per_doc=2) == expected
        body = {"query": QUERY, "documents": ["one two three"], "max_tokens_per_doc": 2, "truncate": False}
        refused = await http.post("/v2/rerank", json=body)
        assert refused.json()["message"] == "documents[0]: the document has 3 tokens, the limit is 2 tokens"


async def test_voyages_clients_get_data(reranker: httpx.AsyncClient) -> None:
    """voyageai.Client.rerank sends this body and reads `data` and `usage.total_tokens`."""
    body = {"query": QUERY, "documents": ["a", "b", "c"], "model": "m", "top_k": 2, "truncation": True}
    expected = await answer_to(reranker, "/v1/rerank", query=QUERY, documents=["a", "b", "c"], top_n=2)
    answer = await answer_to(reranker, "/v1/rerank", **body)
    assert answer["data"] == expected["results"]
    assert answer["usage"]["total_tokens"] == expected["usage"]["total_tokens"]
    assert "results" not in answer


@pytest.mark.parametrize(
    "body",
    [
        # infinity_client.models.RerankInput.to_dict, of infinity-client 0.0.78.
        {"return_documents": False, "raw_scores": False, "model": "default/not-specified"},
        # litellm.llms.infinity.rerank.transformation: rerank("infinity/m", return_documents=True, top_n=1).
        {"model": "m", "top_n": 1, "return_documents": True},
        # Open WebUI, retrieval/models/external.py.
        {"model": "m", "top_n": 2},
    ],
)
async def test_infinitys_clients_find_the_fields_that_they_read(
    reranker: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await answer_to(reranker, "/rerank", query=QUERY, documents=["a", "b"], **body)
    assert {"model", "usage", "results"} <= set(answer)
    assert {"prompt_tokens", "total_tokens"} <= set(answer["usage"])
    assert len(answer["results"]) == body.get("top_n", 2)
    assert all({"index", "relevance_score"} <= set(result) for result in answer["results"])
    assert all(("document" in result) is body.get("return_documents", False) for result in answer["results"])


async def test_activation_off_is_the_same_as_raw_scores(reranker: httpx.AsyncClient) -> None:
    raw = await scores_of(reranker, documents=["a", "b"], raw_scores=True)
    assert await scores_of(reranker, documents=["a", "b"], use_activation=False) == raw
    assert await scores_of(reranker, documents=["a", "b"], use_activation=True) != raw
