"""POST /classify: vLLM's shape, or Infinity's if the body has raw_scores, with the scores of /predict."""

from typing import Any

import httpx
import pytest

from tests.http_gateway.calls import answer_to
from tests.kinds import EMOTIONS

TEXTS = ["hello", "hello world", "good bye"]


async def predictions(http: httpx.AsyncClient, **more: Any) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = await answer_to(http, "/predict", inputs=[[text] for text in TEXTS], **more)
    return found


async def test_by_default_the_answer_is_vllms(classifier: httpx.AsyncClient) -> None:
    answer = await answer_to(classifier, "/classify", model="served", input=TEXTS)
    assert (answer["object"], answer["model"]) == ("list", "served")
    assert answer["usage"] == {"prompt_tokens": 3 + 4 + 4, "total_tokens": 3 + 4 + 4}
    for index, (item, best) in enumerate(zip(answer["data"], await predictions(classifier), strict=True)):
        assert (item["index"], item["num_classes"]) == (index, len(EMOTIONS))
        assert item["label"] == best[0]["label"]
        assert dict(zip(EMOTIONS, item["probs"], strict=True)) == {each["label"]: each["score"] for each in best}
    one = await answer_to(classifier, "/classify", input=TEXTS[0])
    assert one["data"] == answer["data"][:1]


@pytest.mark.parametrize("raw_scores", [False, True])
async def test_with_raw_scores_the_answer_is_infinitys(classifier: httpx.AsyncClient, raw_scores: bool) -> None:
    answer = await answer_to(classifier, "/classify", input=TEXTS, raw_scores=raw_scores)
    assert answer["object"] == "classify"
    assert answer["data"] == await predictions(classifier, raw_scores=raw_scores)
    assert answer["usage"]["total_tokens"] == 3 + 4 + 4
    assert isinstance(answer["created"], int)


@pytest.mark.parametrize("field", ["use_activation", "activation", "softmax"])
async def test_without_activation_probs_are_logits(classifier: httpx.AsyncClient, field: str) -> None:
    answer = await answer_to(classifier, "/classify", input=TEXTS, **{field: False})
    for item, best in zip(answer["data"], await predictions(classifier, raw_scores=True), strict=True):
        assert dict(zip(EMOTIONS, item["probs"], strict=True)) == {each["label"]: each["score"] for each in best}


async def test_refusals_have_openais_shape_and_name_the_text(classifier: httpx.AsyncClient) -> None:
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"input": []}, 400, "input is empty"),
        ({"input": ["a", ""]}, 400, "input[1]: the text is empty"),
        ({"input": [1, 2]}, 400, "input["),
        ({"messages": []}, 400, "input is required"),
        ({"input": "a", "add_special_tokens": False}, 400, "add_special_tokens must be true"),
        ({"input": "a", "use_activation": True, "raw_scores": True}, 400, "use_activation and raw_scores contradict"),
        ({"input": "a", "softmax": False, "raw_scores": False}, 400, "softmax and raw_scores contradict"),
        ({"input": "word " * 400, "truncate": False}, 400, "the input has"),
    ]
    for body, status, beginning in cases:
        response = await classifier.post("/classify", json=body)
        assert response.status_code == status, body
        assert response.json()["error"]["message"].startswith(beginning), response.text


async def test_an_embedder_is_424(http: httpx.AsyncClient) -> None:
    response = await http.post("/classify", json={"input": "a"})
    assert (response.status_code, response.json()["error"]["code"]) == (424, "wrong_task")
