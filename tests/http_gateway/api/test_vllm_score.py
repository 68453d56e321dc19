"""POST /score: vLLM's fields and shapes, with the scores of /rerank."""

from typing import Any

import httpx
import numpy as np
import pytest

from tests.http_gateway.calls import answer_to, costs_of

QUERIES = ["first query", "second query", "first query", "third"]
DOCUMENTS = ["one", "two two", "three three three", ""]


async def rerank_scores(http: httpx.AsyncClient, query: str, *documents: str, **more: Any) -> list[float]:
    ranks = await answer_to(http, "/rerank", query=query, texts=documents, **more)
    return [rank["score"] for rank in sorted(ranks, key=lambda rank: int(rank["index"]))]


def scores_of(answer: dict[str, Any]) -> list[float]:
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return [item["score"] for item in answer["data"]]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
async def test_one_text_is_compared_with_each_of_many(reranker: httpx.AsyncClient, path: str) -> None:
    expected = await rerank_scores(reranker, QUERIES[0], *DOCUMENTS)
    answer = await answer_to(reranker, path, text_1=QUERIES[0], text_2=DOCUMENTS)
    assert scores_of(answer) == expected
    assert (answer["object"], answer["model"]) == ("list", "served")
    assert {item["object"] for item in answer["data"]} == {"score"}
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > len(DOCUMENTS)
    assert scores_of(await answer_to(reranker, path, text_1=[QUERIES[0]], text_2=DOCUMENTS)) == expected
    assert scores_of(await answer_to(reranker, path, text_1=QUERIES[0], text_2=DOCUMENTS[0])) == expected[:1]


async def test_lists_of_the_same_length_are_compared_in_pairs(reranker: httpx.AsyncClient) -> None:
    expected = [
        (await rerank_scores(reranker, query, document))[0] for query, document in zip(QUERIES, DOCUMENTS, strict=True)
    ]
    answer = await answer_to(reranker, "/score", text_1=QUERIES, text_2=DOCUMENTS)
    assert scores_of(answer) == expected
    tokens = [(await costs_of(reranker, "/rerank", query=q, texts=[d]))["x-compute-tokens"] for q, d in pairs()]
    assert answer["usage"]["total_tokens"] == sum(tokens)


def pairs() -> list[tuple[str, str]]:
    return list(zip(QUERIES, DOCUMENTS, strict=True))


@pytest.mark.parametrize("names", [("queries", "documents"), ("queries", "items"), ("data_1", "data_2")])
async def test_the_sides_have_aliases(reranker: httpx.AsyncClient, names: tuple[str, str]) -> None:
    first, second = names
    expected = await answer_to(reranker, "/score", text_1=QUERIES, text_2=DOCUMENTS)
    assert scores_of(await answer_to(reranker, "/score", **{first: QUERIES, second: DOCUMENTS})) == scores_of(expected)


@pytest.mark.parametrize("field", ["use_activation", "activation"])
async def test_without_activation_scores_are_logits(reranker: httpx.AsyncClient, field: str) -> None:
    logits = scores_of(await answer_to(reranker, "/score", text_1="a", text_2=DOCUMENTS, **{field: False}))
    assert logits == await rerank_scores(reranker, "a", *DOCUMENTS, raw_scores=True)
    plain = scores_of(await answer_to(reranker, "/score", text_1="a", text_2=DOCUMENTS, **{field: True}))
    assert plain == pytest.approx((1 / (1 + np.exp(-np.array(logits)))).tolist(), rel=1e-5)


async def test_max_tokens_per_doc_cuts_the_second_side(reranker: httpx.AsyncClient) -> None:
    sides = {"text_1": ["a", "b"], "text_2": ["one two three", "one"]}
    response = await reranker.post("/score", json={**sides, "max_tokens_per_doc": 2})
    assert response.headers["x-truncated-inputs"] == "1"
    expected = await answer_to(reranker, "/score", text_1=["a", "b"], text_2=["one two", "one"])
    assert scores_of(response.json()) == scores_of(expected)


async def test_costs_are_those_of_all_pairs(reranker: httpx.AsyncClient) -> None:
    costs = await costs_of(reranker, "/score", text_1=["a", "b"], text_2=["word " * 400, "c"])
    assert costs["x-truncated-inputs"] == 1
    assert costs["x-compute-tokens"] == 256 + 5
    assert costs["x-compute-characters"] == 1 + 5 * 400 + 1 + 1


async def test_refusals_have_openais_shape_and_name_the_text(reranker: httpx.AsyncClient) -> None:
    cases: list[tuple[dict[str, Any], int, str, str]] = [
        ({"text_1": "a"}, 400, "text_1", "send exactly one of these pairs of fields"),
        ({}, 400, "text_1", "send exactly one of these pairs of fields"),
        ({"text_1": "a", "data_2": "b"}, 400, "data_2", "send exactly one of these pairs of fields"),
        ({"text_1": "a", "text_2": "b", "queries": "c"}, 400, "queries", "send exactly one of these pairs of fields"),
        ({"text_1": ["a", "b"], "text_2": ["c"]}, 400, "text_1", "text_1 has 2 texts and text_2 has 1"),
        ({"text_1": ["a", "b"], "text_2": ["c"] * 3}, 400, "text_1", "text_1 has 2 texts and text_2 has 3"),
        ({"text_1": "a", "text_2": []}, 400, "text_2", "text_2 is empty"),
        ({"queries": [], "documents": ["a"]}, 400, "queries", "queries is empty"),
        ({"queries": ["a", ""], "documents": ["a", "b"]}, 400, "queries", "queries[1]: the text is empty"),
        ({"text_1": "", "text_2": ["a"]}, 400, "text_1", "text_1: the text is empty"),
        ({"text_1": "a", "text_2": ["b"] * 3000}, 400, "text_2", "text_2 holds 3000 texts"),
        ({"text_1": "a", "text_2": "b", "add_special_tokens": False}, 400, "add_special_tokens", "add_special_tokens"),
        (
            {"text_1": "a", "text_2": "b", "instruction": "c"},
            400,
            "instruction",
            "the model's prompt takes no instruction",
        ),
        (
            {"text_1": "a", "text_2": "b", "max_tokens_per_query": 5},
            400,
            "max_tokens_per_query",
            "max_tokens_per_query",
        ),
        ({"text_1": {"content": []}, "text_2": "b"}, 400, "text_1", "text_1: "),
        (
            {"text_1": ["a", "b"], "text_2": ["c", "word " * 400], "truncate": False},
            400,
            "text_2",
            "text_2[1]: the input has",
        ),
    ]
    for body, status, param, beginning in cases:
        response = await reranker.post("/score", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (status, param), (body, error)
        assert error["message"].startswith(beginning), error
