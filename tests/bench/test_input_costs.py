"""The costs of single-input requests and of further inputs equal numbers worked out by hand."""

import json
import random
from collections import Counter

import pytest

from tests.bench.bench_inputs import Counts, request_bodies, since
from tests.bench.input_costs import INPUTS, Round, Turn, comparison, dearest, figures

ENGINE = "engine_svc"
FURTHER = INPUTS - 1


def round_of(single: float, further: float) -> Round:
    """A round in which only the engine has costs: one for a single-input request, and one for each further input."""
    one = Turn(10, 0.0, {ENGINE: 10 * single})
    many = Turn(4, 50_000.0, {ENGINE: 4 * (single + FURTHER * further)})
    return Round(one, many)


def test_costs_of_two_sizes_tell_that_of_a_further_input() -> None:
    measured = round_of(single=200.0, further=5.0)
    assert measured.of_single(ENGINE) == pytest.approx(200)
    assert measured.of_further_input(ENGINE) == pytest.approx(5)
    assert measured.of_further_input("http_gateway") == 0


def test_a_row_has_the_median_of_each_tree_and_ratios_to_the_first() -> None:
    before = [round_of(100, 8), round_of(100, 80), round_of(100, 16)]
    after = [round_of(100, 2), round_of(100, 20), round_of(100, 4)]
    lines = list(comparison({"before": before, "after": after}, [*figures("CPU µs")]))
    assert lines[0] == "|  | before | after | after / before |"
    assert "| CPU µs per further input: engine | 16.0 | 4.0 | 0.25 |" in lines
    assert "| CPU µs per further input: all | 16.0 | 4.0 | 0.25 |" in lines
    assert "| CPU µs per single-input request: engine | 100.0 | 100.0 | 1.00 |" in lines
    assert "| CPU µs per further input: gateway | 0.0 | 0.0 |  |" in lines


def test_the_functions_called_most_often_per_further_input_come_first() -> None:
    single = Counter({"of a request": 10, "of an input": 10})
    many = Counter({"of a request": 4, "of an input": 4 * INPUTS, "of two": 8 * FURTHER})
    assert list(dearest(single, many, (10, 4), 2)) == [("of two", 2), ("of an input", 1)]


def test_calls_are_those_between_two_readings() -> None:
    before = {ENGINE: Counts(Counter({"a": 2, "b": 1}), 10)}
    now = {ENGINE: Counts(Counter({"a": 5, "b": 1, "c": 4}), 17)}
    assert since(before, now) == {ENGINE: Counts(Counter({"a": 3, "c": 4}), 7)}


def test_all_texts_differ_and_have_three_distinct_words() -> None:
    bodies = request_bodies(random.Random(0))
    single = [json.loads(body)["input"] for body in bodies[1]]
    lists = [json.loads(body)["input"] for body in bodies[INPUTS]]
    assert {len(texts) for texts in lists} == {INPUTS}
    texts = single + [text for some in lists for text in some]
    assert len(set(texts)) == len(texts)
    assert all(len(set(text.split())) == 3 for text in texts)
