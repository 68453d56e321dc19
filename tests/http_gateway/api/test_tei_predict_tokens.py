"""POST /predict_tokens, and POST / of a token classifier, which answers in the shape of Hugging Face's pipeline.

tests/clients/test_huggingface.py compares the values with the pipeline's.
"""

from typing import Any

import httpx
import pytest

from tests.http_gateway.calls import answer_to, check_refusals, costs_of, refusal_of
from tests.kinds import TAGS

PATH = "/predict_tokens"
TEXT = "Zoë met 王小明 in São Paulo 🎉"


async def test_every_form_of_inputs_is_a_list_of_texts(tagger: httpx.AsyncClient) -> None:
    one = await answer_to(tagger, PATH, inputs=TEXT)
    two = await answer_to(tagger, PATH, inputs=[TEXT, "another"])
    assert len(one) == 1
    assert two[0] == one[0]
    assert await answer_to(tagger, PATH, inputs=[[TEXT], ["another"]]) == two
    assert await answer_to(tagger, PATH, inputs=[[TEXT, "another"]]) == two


async def test_tokens_have_offsets_and_special_ones_are_included(tagger: httpx.AsyncClient) -> None:
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


async def test_cost_headers_count_tokens_and_truncated_inputs(tagger: httpx.AsyncClient) -> None:
    costs = await costs_of(tagger, PATH, inputs=["hello", "word " * 400])
    assert (costs["x-compute-tokens"], costs["x-truncated-inputs"]) == (3 + 256, 1)


async def test_truncation_keeps_the_requested_side(tagger: httpx.AsyncClient) -> None:
    text = "first " * 400 + "last " * 400
    (right,) = await answer_to(tagger, PATH, inputs=text)
    (left,) = await answer_to(tagger, PATH, inputs=text, truncate=True, truncation_direction="Left")
    assert {token["token"] for token in right[1:-1]} == {"first"}
    assert {token["token"] for token in left[1:-1]} == {"last"}
    assert left[-2]["end"] == len(text) - 1
    assert all(text[token["start"] : token["end"]] == "last" for token in left[1:-1])


async def test_refusals_name_the_text(tagger: httpx.AsyncClient) -> None:
    await check_refusals(
        tagger,
        PATH,
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
    )


@pytest.mark.parametrize("path", ["/", "/invocations"])
async def test_a_text_gets_one_list_and_a_list_of_texts_one_each(tagger: httpx.AsyncClient, path: str) -> None:
    one = await answer_to(tagger, path, inputs=TEXT)
    assert one
    assert all(set(row) == {"entity_group", "score", "word", "start", "end"} for row in one)
    assert await answer_to(tagger, path, inputs=[TEXT, TEXT]) == [one, one]
    assert await answer_to(tagger, path, inputs=[TEXT]) == [one]
    tokens = await answer_to(tagger, path, inputs=TEXT, parameters={"aggregation_strategy": "none"})
    assert all(set(row) == {"entity", "score", "index", "word", "start", "end"} for row in tokens)
    assert await answer_to(tagger, path, inputs=TEXT, aggregation_strategy="none") == tokens


async def test_vertex_answers_each_instance_as_the_root_does(tagger: httpx.AsyncClient) -> None:
    bodies: list[dict[str, Any]] = [
        {"inputs": TEXT},
        {"inputs": [[TEXT]]},
        {"inputs": TEXT, "parameters": {"aggregation_strategy": "max", "ignore_labels": []}},
    ]
    expected = [await answer_to(tagger, "/", **body) for body in bodies]
    assert await answer_to(tagger, "/vertex", instances=bodies, parameters={}) == {"predictions": expected}
    shared = {"instances": bodies, "parameters": {"aggregation_strategy": "none"}}
    assert (await refusal_of(tagger, "/vertex", **shared))[2].startswith("parameters must be {}, or absent")


async def test_lists_of_lists_keep_the_shape_of_predict_tokens(tagger: httpx.AsyncClient) -> None:
    for inputs in ([[TEXT]], [[TEXT], ["b"]], [[TEXT, "b"]], [TEXT, ["b"]]):
        expected = await answer_to(tagger, "/predict_tokens", inputs=inputs, raw_scores=True)
        assert await answer_to(tagger, "/", inputs=inputs, raw_scores=True) == expected
    assert "results" in (await answer_to(tagger, "/predict_tokens", inputs=TEXT))[0][0]


async def test_ignore_labels_drops_rows_by_their_label(tagger: httpx.AsyncClient) -> None:
    every = await answer_to(tagger, "/", inputs=TEXT * 3, parameters={"ignore_labels": []})
    some = await answer_to(tagger, "/", inputs=TEXT * 3, parameters={"ignore_labels": ["PER", "O"]})
    assert {row["entity_group"] for row in every} > {"PER", "O"}
    assert some == [row for row in every if row["entity_group"] not in ("PER", "O")]


async def test_cost_headers_are_sent(tagger: httpx.AsyncClient) -> None:
    assert (await costs_of(tagger, "/", inputs=["hello", "word " * 400]))["x-truncated-inputs"] == 1


async def test_unsupported_fields_of_the_pipeline_are_refused_by_name(tagger: httpx.AsyncClient) -> None:
    await check_refusals(
        tagger,
        "/",
        ({"inputs": TEXT, "raw_scores": True}, (400, "Validation"), "raw_scores: "),
        ({"inputs": "word " * 400, "parameters": {"stride": 0}}, (400, "Validation"), "parameters.stride: "),
        ({"inputs": [[TEXT]], "parameters": {"stride": 2}}, (400, "Validation"), "parameters: "),
        ({"inputs": TEXT, "parameters": {"stride": -1}}, (400, "Validation"), "parameters.stride: "),
        ({"inputs": TEXT, "parameters": {"aggregation_strategy": "best"}}, (400, "Validation"), "parameters.aggr"),
        (
            {"inputs": TEXT, "aggregation_strategy": "max", "parameters": {"aggregation_strategy": "first"}},
            (400, "Validation"),
            "aggregation_strategy and parameters.aggregation_strategy contradict",
        ),
        ({"inputs": ["a", ""]}, (400, "Empty"), "inputs[1]: "),
        ({"inputs": []}, (400, "Empty"), "inputs is empty"),
    )
