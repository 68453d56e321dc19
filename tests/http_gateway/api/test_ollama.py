"""Ollama's routes: its shapes, its errors, and the vectors of /embed. Its client is tested in tests/clients."""

from typing import Any

import httpx
import numpy as np

from heddle.checkpoint.model_source import PACKAGED_NAME
from tests.http_gateway.calls import answer_to

TEXTS = ["hello", "hello world"]


async def test_embed_has_ollamas_shape_and_unit_vectors(http: httpx.AsyncClient) -> None:
    answer = await answer_to(http, "/api/embed", model="all-minilm", input=TEXTS, keep_alive="5m")
    assert set(answer) == {"model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"}
    assert answer["embeddings"] == await answer_to(http, "/embed", inputs=TEXTS)
    assert (answer["model"], answer["prompt_eval_count"]) == (PACKAGED_NAME, 7)
    one = await answer_to(http, "/api/embed", model="all-minilm", input=TEXTS[0], dimensions=8)
    assert one["embeddings"] == await answer_to(http, "/embed", inputs=TEXTS[0], dimensions=8)


async def test_the_older_form_is_not_normalised(http: httpx.AsyncClient) -> None:
    answer = await answer_to(http, "/api/embeddings", model="all-minilm", prompt=TEXTS[0])
    assert [answer["embedding"]] == await answer_to(http, "/embed", inputs=TEXTS[0], normalize=False)
    assert not np.isclose(np.linalg.norm(answer["embedding"]), 1)


async def test_num_ctx_cuts_texts_and_other_options_are_ignored(http: httpx.AsyncClient) -> None:
    text = "word " * 100
    options = {"num_ctx": 10, "temperature": 0.5}
    cut = await http.post("/api/embed", json={"input": text, "options": options})
    assert (cut.json()["prompt_eval_count"], cut.headers["x-truncated-inputs"]) == (10, "1")
    whole = await answer_to(http, "/api/embed", input=text, options={"num_ctx": 4096})
    assert whole["prompt_eval_count"] == 102
    refused = await http.post("/api/embed", json={"input": text, "options": options, "truncate": False})
    assert (refused.status_code, list(refused.json())) == (400, ["error"])


async def test_errors_have_ollamas_shape(http: httpx.AsyncClient) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("/api/embed", {"input": ["a", ""]}, "input[1]: the text is empty"),
        ("/api/embed", {"model": "a"}, "input is required"),
        ("/api/embed", {"input": "word " * 400, "truncate": False}, "the input has 402 tokens"),
        ("/api/embed", {"input": "a", "dimensions": 1000}, "1000 dimensions are more"),
        ("/api/embed", {"input": "a", "options": {"num_ctx": 0}}, "options.num_ctx: "),
        ("/api/embeddings", {"prompt": ""}, "prompt: the text is empty"),
        ("/api/embeddings", {"input": "a"}, "prompt is required"),
    ]
    for path, body, beginning in cases:
        response = await http.post(path, json=body)
        assert response.status_code == 400, body
        assert list(response.json()) == ["error"]
        assert response.json()["error"].startswith(beginning), response.text
