"""Phases of a start are read from the log lines that services write, and compared between trees."""

import pytest

from tests.bench.start_times import CPU, FIRST_ANSWER, comparison, read_log

LOG = """
loading m: waiting for gateway, tokenizer, engine (0 s)
engine: 23:59:59.500 info heddle.rpc.lifecycle: listening on unix:/tmp/heddle-x/engine-0
engine: 00:00:00.500 info heddle.rpc.lifecycle: ready after 1.50 s: imports 0.50, torch 0.75, warm-up 0.25
gateway: 00:00:00.600 info http_gateway.app: GET /ready 503 0.1 ms [request 6c82a4911ec104db]
""".strip().splitlines()


def test_phases_and_events_are_in_seconds_since_the_start() -> None:
    rows = read_log(LOG, 86_398.75)
    assert rows == {
        "engine listens": pytest.approx(0.75),
        "engine ready": pytest.approx(1.75),
        "engine starts": pytest.approx(0.25),
        "engine: imports": 0.5,
        "engine: torch": 0.75,
        "engine: warm-up": 0.25,
    }


def test_a_tree_without_phases_has_only_events() -> None:
    line = "engine: 12:00:01.000 info heddle.rpc.lifecycle: ready after 0.6 s"
    assert read_log([line], 43_200) == {"engine ready": 1.0}


def test_a_row_has_the_least_and_the_median_of_each_tree_and_the_mean_ratio_of_the_rounds() -> None:
    before = [{FIRST_ANSWER: 4.0, CPU: 6.0}, {FIRST_ANSWER: 8.0, CPU: 6.0}, {FIRST_ANSWER: 6.0, CPU: 6.0}]
    after = [{FIRST_ANSWER: 1.0, CPU: 3.0, "engine: torch": 0.5}, {FIRST_ANSWER: 8.0, CPU: 3.0}, {FIRST_ANSWER: 3.0}]
    lines = list(comparison({"before": before, "after": after}))
    assert lines[0] == "| seconds | before, least | before, median | after, least | after, median | after / before |"
    assert lines[2:] == [
        "| engine: torch |  |  | 0.50 | 0.50 |  |",
        "| first answer | 4.00 | 6.00 | 1.00 | 3.00 | 0.50 |",
        "| CPU time until then | 6.00 | 6.00 | 3.00 | 3.00 | 0.50 |",
    ]
