"""POST /rerank, /v1/rerank and /v2/rerank: the best first, each family's shape, and refusals that name the document."""

import httpx
import numpy as np
import pytest

from tests.http_gateway.calls import answer_to, check_refusals, costs_of, refusal_of

TEXTS = [f"document {number}" for number in range(9)]
QUERY = "which one?"
COHERE_PATHS = ["/v1/rerank", "/v2/rerank"]


async def test_texts_are_sorted_and_keep_their_index(reranker: httpx.AsyncClient) -> None:
    ranks = await answer_to(reranker, "/rerank", query=QUERY, texts=TEXTS, raw_scores=True)
    assert sorted(rank["index"] for rank in ranks) == list(range(9))
    assert [rank["score"] for rank in ranks] == sorted((rank["score"] for rank in ranks), reverse=True)
    assert all(set(rank) == {"index", "score"} for rank in ranks)
    one = await answer_to(reranker, "/rerank", query=QUERY, texts=[TEXTS[ranks[0]["index"]]], raw_scores=True)
    assert one == [{"index": 0, "score": ranks[0]["score"]}]


async def test_scores_are_the_sigmoid_of_the_raw_ones(reranker: httpx.AsyncClient) -> None:
    raw = await answer_to(reranker, "/rerank", query=QUERY, texts=TEXTS, raw_scores=True)
    ranks = await answer_to(reranker, "/rerank", query=QUERY, texts=TEXTS)
    expected = 1 / (1 + np.exp(-np.array([rank["score"] for rank in raw])))
    assert np.allclose([rank["score"] for rank in ranks], expected, atol=1e-6)
    assert [rank["index"] for rank in ranks] == [rank["index"] for rank in raw]


async def test_equal_scores_keep_the_order_of_the_texts(reranker: httpx.AsyncClient) -> None:
    ranks = await answer_to(reranker, "/rerank", query=QUERY, texts=["same"] * 5)
    assert [rank["index"] for rank in ranks] == [0, 1, 2, 3, 4]


async def test_texts_are_returned_on_request(reranker: httpx.AsyncClient) -> None:
    ranks = await answer_to(reranker, "/rerank", query=QUERY, texts=TEXTS, return_text=True)
    assert all(rank["text"] == TEXTS[rank["index"]] for rank in ranks)


async def test_costs_count_the_pairs(reranker: httpx.AsyncClient) -> None:
    costs = await costs_of(reranker, "/rerank", query="a", texts=["b", "c " * 400])
    assert costs["x-compute-tokens"] == 5 + 256
    assert costs["x-truncated-inputs"] == 1


@pytest.mark.parametrize("path", COHERE_PATHS)
async def test_cohere_and_jina_get_the_same_scores_in_their_shape(reranker: httpx.AsyncClient, path: str) -> None:
    ranks = await answer_to(reranker, "/rerank", query=QUERY, texts=TEXTS)
    answer = await answer_to(reranker, path, model="any", query=QUERY, documents=TEXTS)
    expected = [{"index": rank["index"], "relevance_score": rank["score"]} for rank in ranks]
    assert answer["results"] == expected
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 9
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    assert answer["meta"]["tokens"] == {"input_tokens": answer["usage"]["total_tokens"], "output_tokens": 0}
    assert answer["model"] == "served"
    assert answer["id"]
    assert answer["meta"]["api_version"]["version"] == path[2]


@pytest.mark.parametrize(("top_n", "count"), [(None, 9), (0, 9), (1, 1), (4, 4), (9, 9), (100, 9)])
async def test_top_n_keeps_the_best(reranker: httpx.AsyncClient, top_n: int | None, count: int) -> None:
    everything = await answer_to(reranker, "/v2/rerank", query=QUERY, documents=TEXTS)
    answer = await answer_to(reranker, "/v2/rerank", query=QUERY, documents=TEXTS, top_n=top_n)
    assert answer["results"] == everything["results"][:count]


async def test_refusals_name_what_is_wrong(reranker: httpx.AsyncClient) -> None:
    await check_refusals(
        reranker,
        "/rerank",
        ({"query": QUERY, "texts": []}, (400, "Empty"), "texts is empty"),
        ({"query": "", "texts": ["a"]}, (400, "Empty"), ""),
        ({"texts": ["a"]}, (400, "Validation"), "query is required"),
        ({"query": QUERY, "texts": "a"}, (400, "Validation"), "texts: "),
        ({"query": QUERY, "texts": ["a", "long " * 300], "truncate": False}, (413, "Validation"), "texts[1]: "),
        ({"query": QUERY, "texts": ["a"] * 2049}, (413, "Validation"), "texts holds 2049"),
    )
    response = await reranker.post("/v2/rerank", json={"query": QUERY, "documents": ["a", {"title": "no text"}]})
    assert (response.status_code, set(response.json())) == (400, {"message", "detail"})


async def test_embedding_with_a_reranker_is_424_and_names_its_kind(reranker: httpx.AsyncClient) -> None:
    status, kind, message = await refusal_of(reranker, "/embed", inputs="a")
    assert (status, kind) == (424, "Backend")
    assert "reranker" in message
    response = await reranker.post("/v1/embeddings", json={"input": "a"})
    error = response.json()
    assert (response.status_code, error["code"], error["type"]) == (424, 424, "Backend")
    assert error["error"]["message"] == error["message"] == message


async def test_errors_of_the_query_name_the_query(reranker: httpx.AsyncClient) -> None:
    assert (await refusal_of(reranker, "/rerank", query="", texts=TEXTS))[2] == "query: the text is empty"


@pytest.mark.parametrize("path", COHERE_PATHS)
async def test_a_long_document_is_refused_if_the_request_says_so(reranker: httpx.AsyncClient, path: str) -> None:
    body = {"query": QUERY, "documents": ["short", "long " * 400]}
    assert (await reranker.post(path, json=body)).headers["x-truncated-inputs"] == "1"
    refused = await reranker.post(path, json={**body, "truncate": False})
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("documents[1]: ")


async def test_the_tokenizer_drops_nul_characters(reranker: httpx.AsyncClient) -> None:
    with_nul = await answer_to(reranker, "/rerank", query="a\0b", texts=["c\0", "\0"])
    assert with_nul == await answer_to(reranker, "/rerank", query="ab", texts=["c", ""])
