"""POST /embed, /embed_all, /embed_sparse and /similarity: TEI's shapes, and clear refusals."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from heddle.client import Client
from tests.http_gateway.calls import answer_to, costs_of, refusal_of
from tests.kinds import http_of, write_sparse_embedder

TEXTS = ["first", "the second text", "third"]
LONG = "word " * 600  # more than the 256 tokens that the model takes


async def test_embed_gives_bare_rows_equal_to_those_of_grpc(http: httpx.AsyncClient, tokenizer: str) -> None:
    async with Client(tokenizer) as client:
        expected = await client.vectors(TEXTS)
    assert np.array_equal(np.array(await answer_to(http, "/embed", inputs=TEXTS), np.float32), expected)
    assert np.array_equal(np.array(await answer_to(http, "/embed", inputs=TEXTS[0]), np.float32), expected[:1])


async def test_embed_takes_token_ids_as_they_are(http: httpx.AsyncClient) -> None:
    expected = await answer_to(http, "/embed", inputs="hello")
    assert await answer_to(http, "/embed", inputs=[101, 7592, 102]) == expected
    assert await answer_to(http, "/embed", inputs=[[101, 7592, 102], "hello"]) == expected * 2
    assert await refusal_of(http, "/embed", inputs=[[101, 30522]]) == (
        400,
        "Validation",
        "inputs[0]: token id 30522 is outside the model's vocabulary of 30522",
    )
    for path in ("/embed", "/embed_all"):
        message = (await refusal_of(http, path, inputs=[101, 30522]))[2]
        assert message == "token id 30522 is outside the model's vocabulary of 30522"
        assert (await refusal_of(http, path, inputs=[-1]))[2].startswith("inputs: token ids must be")


async def test_embed_normalises_by_default(http: httpx.AsyncClient) -> None:
    normal = np.array((await answer_to(http, "/embed", inputs="a", normalize=None))[0])
    raw = np.array((await answer_to(http, "/embed", inputs="a", normalize=False))[0])
    assert np.linalg.norm(normal) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(raw) != pytest.approx(1, abs=1e-2)
    assert np.allclose(raw / np.linalg.norm(raw), normal, atol=1e-6)


async def test_dimensions_cut_and_normalise(http: httpx.AsyncClient) -> None:
    whole = np.array((await answer_to(http, "/embed", inputs="a"))[0])
    cut = np.array((await answer_to(http, "/embed", inputs="a", dimensions=16))[0])
    assert np.allclose(cut, whole[:16] / np.linalg.norm(whole[:16]), atol=1e-6)


async def test_long_input_is_cut_on_the_side_that_is_named_or_refused(http: httpx.AsyncClient) -> None:
    text = "first " * 400 + "last " * 400
    right = await answer_to(http, "/embed", inputs=text)
    left = await answer_to(http, "/embed", inputs=text, truncate=True, truncation_direction="Left")
    assert right == await answer_to(http, "/embed", inputs="first " * 254, truncate=False)
    assert left == await answer_to(http, "/embed", inputs="last " * 254, truncate=False)
    assert left == await answer_to(http, "/embed", inputs=text, truncation_direction="left")
    assert right == await answer_to(http, "/embed", inputs=text, truncation_direction="Right")
    status, kind, message = await refusal_of(http, "/embed", inputs=["fine", text], truncate=False)
    assert (status, kind) == (413, "Validation")
    assert message == "inputs[1]: the input has 802 tokens, the limit is 256 tokens"


async def test_cost_headers_count_tokens_and_truncated_inputs(http: httpx.AsyncClient) -> None:
    costs = await costs_of(http, "/embed", inputs=[LONG, "hello"])
    assert costs["x-compute-tokens"] == 256 + 3
    assert costs["x-truncated-inputs"] == 1
    assert costs["x-total-time"] >= max(costs["x-queue-time"], costs["x-inference-time"])


async def test_embed_all_gives_a_row_for_each_token(http: httpx.AsyncClient) -> None:
    first, second = await answer_to(http, "/embed_all", inputs=["hello", "hello world"])
    assert (np.shape(first), np.shape(second)) == ((3, 384), (4, 384))
    assert await answer_to(http, "/embed_all", inputs="hello") == [first]


async def test_similarity_is_the_cosine(http: httpx.AsyncClient) -> None:
    source, *others = np.array(await answer_to(http, "/embed", inputs=["a", "a", "b", "c"]))
    inputs = {"source_sentence": "a", "sentences": ["a", "b", "c"]}
    scores = await answer_to(http, "/similarity", inputs=inputs, parameters={"truncate": True})
    assert np.allclose(scores, np.array(others) @ source, atol=1e-6)
    assert scores[0] == pytest.approx(1, abs=1e-6)


async def test_similarity_names_the_sentence_that_is_wrong(http: httpx.AsyncClient) -> None:
    cases = [
        ({"source_sentence": "a", "sentences": ["b", ""]}, (400, "Empty", "inputs.sentences[1]: ")),
        ({"source_sentence": "", "sentences": ["b"]}, (400, "Empty", "")),
        ({"source_sentence": "a", "sentences": []}, (400, "Empty", "inputs.sentences is empty")),
        ({"sentences": ["b"]}, (400, "Validation", "inputs.source_sentence is required")),
    ]
    for inputs, (status, kind, beginning) in cases:
        refusal = await refusal_of(http, "/similarity", inputs=inputs)
        assert refusal[:2] == (status, kind), inputs
        assert refusal[2].startswith(beginning)


async def test_embed_sparse_gives_the_entries_that_are_not_zero(tmp_path: Path) -> None:
    async with http_of(tmp_path, write_sparse_embedder(tmp_path / "model")) as http:
        first, second = await answer_to(http, "/embed_sparse", inputs=["hello", "world"])
        assert first
        assert first != second
        indices = [entry["index"] for entry in first]
        assert indices == sorted(set(indices))
        assert all(entry["value"] != 0 for entry in first)
        assert await answer_to(http, "/embed_sparse", inputs="hello") == [first]


@pytest.mark.parametrize(
    ("path", "body", "refusal"),
    [
        ("/embed", {"inputs": []}, (400, "Empty")),
        ("/embed", {"inputs": ["a", ""]}, (400, "Empty")),
        ("/embed", {}, (400, "Validation")),
        ("/embed", {"inputs": {"text": "a"}}, (400, "Validation")),
        ("/embed", {"inputs": "a", "dimensions": 385}, (400, "Validation")),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, (400, "Validation")),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, (400, "Validation")),
        ("/embed", {"inputs": ["a"] * 2049}, (413, "Validation")),
        ("/embed_all", {"inputs": []}, (400, "Empty")),
        ("/embed_sparse", {"inputs": "a"}, (424, "Backend")),
        ("/rerank", {"query": "a", "texts": ["b"]}, (424, "Backend")),
        ("/predict", {"inputs": "a"}, (424, "Backend")),
        ("/predict_tokens", {"inputs": "a"}, (424, "Backend")),
    ],
)
async def test_refusals_have_teis_status_and_type(
    http: httpx.AsyncClient, path: str, body: dict[str, object], refusal: tuple[int, str]
) -> None:
    assert (await refusal_of(http, path, **body))[:2] == refusal
