"""POST /predict_tokens: every form of input, offsets into the original text, special tokens, all labels or the best."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.http_gateway.calls import answer_to, costs_of, refusal_of
from tests.kinds import TAGS, http_of, write_token_classifier

PATH = "/predict_tokens"
TEXT = "Zoë met 王小明 in São Paulo 🎉"


@pytest.fixture
async def tagger(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with http_of(tmp_path, write_token_classifier(tmp_path / "model")) as http:
        yield http


async def test_every_form_of_inputs_is_a_list_of_texts(tagger: httpx.AsyncClient) -> None:
    one = await answer_to(tagger, PATH, inputs=TEXT)
    two = await answer_to(tagger, PATH, inputs=[TEXT, "another"])
    assert len(one) == 1
    assert two[0] == one[0]
    assert await answer_to(tagger, PATH, inputs=[[TEXT], ["another"]]) == two
    assert await answer_to(tagger, PATH, inputs=[[TEXT, "another"]]) == two


async def test_tokens_lie_where_they_say_and_special_ones_are_there(tagger: httpx.AsyncClient) -> None:
    (tokens,) = await answer_to(tagger, PATH, inputs=TEXT)
    assert (tokens[0]["token"], tokens[-1]["token"]) == ("[CLS]", "[SEP]")
    assert [(token["start"], token["end"]) for token in (tokens[0], tokens[-1])] == [(0, 0), (0, 0)]
    for token in tokens[1:-1]:
        assert token["token"] == TEXT[token["start"] : token["end"]]
        assert len(token["results"]) == 1
    (ids,) = await answer_to(tagger, "/tokenize", inputs=TEXT)
    assert [token["token_id"] for token in tokens] == [token["id"] for token in ids]


async def test_raw_scores_are_all_logits(tagger: httpx.AsyncClient) -> None:
    (tokens,) = await answer_to(tagger, PATH, inputs=TEXT, raw_scores=True)
    (best,) = await answer_to(tagger, PATH, inputs=TEXT)
    for token, top in zip(tokens, best, strict=True):
        assert set(token["results"]) == set(TAGS)
        scores = list(token["results"].values())
        assert scores == sorted(scores, reverse=True)
        assert token["results"][next(iter(top["results"]))] == scores[0]
        assert 0 < next(iter(top["results"].values())) <= 1


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
async def test_aggregated_spans_are_slices_of_the_text_without_prefixes(
    tagger: httpx.AsyncClient, strategy: str
) -> None:
    (spans,) = await answer_to(tagger, PATH, inputs=TEXT * 3, aggregation_strategy=strategy)
    assert spans
    for span in spans:
        assert span["token"] == (TEXT * 3)[span["start"] : span["end"]]
        assert span["token_id"] == 0
        assert set(span["results"]) < {"PER", "ORG", "LOC"}


async def test_costs_are_told(tagger: httpx.AsyncClient) -> None:
    costs = await costs_of(tagger, PATH, inputs=["hello", "word " * 400])
    assert (costs["x-compute-tokens"], costs["x-truncated-inputs"]) == (3 + 256, 1)


async def test_truncation_keeps_the_side_that_is_asked_for(tagger: httpx.AsyncClient) -> None:
    text = "first " * 400 + "last " * 400
    (right,) = await answer_to(tagger, PATH, inputs=text)
    (left,) = await answer_to(tagger, PATH, inputs=text, truncate=True, truncation_direction="Left")
    assert {token["token"] for token in right[1:-1]} == {"first"}
    assert {token["token"] for token in left[1:-1]} == {"last"}
    assert left[-2]["end"] == len(text) - 1
    assert all(text[token["start"] : token["end"]] == "last" for token in left[1:-1])


async def test_refusals_name_the_text(tagger: httpx.AsyncClient) -> None:
    cases: list[tuple[dict[str, Any], tuple[int, str], str]] = [
        ({"inputs": []}, (400, "Empty"), ""),
        ({"inputs": [["a"], [""]]}, (400, "Empty"), "inputs[1][0]: "),
        ({"inputs": [["a", ""]]}, (400, "Empty"), "inputs[0][1]: "),
        ({"inputs": ["a", ["b", ""]]}, (400, "Empty"), "inputs[1][1]: "),
        ({"inputs": ["a", ""]}, (400, "Empty"), "inputs[1]: "),
        ({"inputs": ""}, (400, "Empty"), "the text is empty"),
        ({"inputs": "a", "aggregation_strategy": "max", "raw_scores": True}, (400, "Validation"), "entities have no"),
        ({"inputs": "a", "aggregation_strategy": "best"}, (400, "Validation"), "aggregation_strategy: "),
        ({"inputs": ["a", "word " * 400], "truncate": False}, (413, "Validation"), "inputs[1]: "),
        ({"inputs": 5}, (400, "Validation"), "inputs: "),
    ]
    for body, expected, beginning in cases:
        refusal = await refusal_of(tagger, PATH, **body)
        assert refusal[:2] == expected, body
        assert refusal[2].startswith(beginning), refusal
