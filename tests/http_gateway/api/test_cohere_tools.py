"""POST /v1/tokenize, /v1/detokenize and /v1/check-api-key of Cohere."""

import httpx
import pytest

from tests.cluster import gateway
from tests.http_gateway.calls import answer_to


async def test_tokenize_returns_no_special_tokens(http: httpx.AsyncClient) -> None:
    answer = await answer_to(http, "/v1/tokenize", text="hello embeddings", model="m")
    ((*expected,),) = await answer_to(http, "/tokenize", inputs="hello embeddings", add_special_tokens=False)
    assert answer["tokens"] == [token["id"] for token in expected]
    assert answer["token_strings"] == [token["text"] for token in expected]
    assert answer["meta"] == {"api_version": {"version": "1"}}
    back = await answer_to(http, "/v1/detokenize", tokens=answer["tokens"], model="m")
    assert back["text"] == "hello embeddings"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/tokenize", {}, "text is required"),
        ("/v1/detokenize", {}, "tokens is required"),
        ("/v1/detokenize", {"tokens": [-1]}, "tokens: token ids must be from 0"),
        ("/v1/detokenize", {"tokens": [10**6]}, "tokens: token id 1000000 is outside the model's vocabulary"),
    ],
)
async def test_refusals_name_the_field(http: httpx.AsyncClient, path: str, body: dict[str, object], words: str) -> None:
    response = await http.post(path, json=body)
    assert response.status_code == 400
    assert response.json()["message"].startswith(words)


async def test_check_api_key_answers_true_or_401(tokenizer: str) -> None:
    async with gateway(tokenizer, api_keys=("right",)) as url, httpx.AsyncClient(base_url=url) as http:
        response = await http.post("/v1/check-api-key", headers={"authorization": "Bearer right"})
        assert response.json() == {"valid": True}
        assert (await http.post("/v1/check-api-key", headers={"authorization": "Bearer wrong"})).status_code == 401
