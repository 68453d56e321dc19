"""How work is counted, how outputs are compared, and when an aim is met."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.gpu.aims import AIMS, compare_with_aims
from tests.gpu.comparing import least_cosine, relative_error
from tests.gpu.shapes import SHAPES
from tests.gpu.waits import format_place


def test_work_of_the_largest_model_is_that_of_its_parameters() -> None:
    """6.95 billion of them outside the embeddings: 13.9 GFLOP for each token, to which attention adds one in a hundred
    at 500 tokens."""
    shape = SHAPES[0]
    assert shape.weights == pytest.approx(6.95e9, rel=0.001)
    assert shape.linear_flops(1) == pytest.approx(13.9e9, rel=0.001)
    assert shape.attention_flops([500]) / shape.linear_flops(500) == pytest.approx(0.0106, rel=0.01)


def test_an_encoder_attends_to_all_pairs_of_tokens() -> None:
    assert SHAPES[2].attention_flops([3, 1]) == 4 * 6 * 12 * 32 * (9 + 1)


def test_nan_has_the_worst_error_and_cosine() -> None:
    theirs = [np.ones(40, np.float32)]
    ours = [np.full(40, np.nan, np.float32)]
    assert relative_error(ours, theirs) == float("inf")
    assert least_cosine(ours, theirs) == -1


def test_the_worst_row_counts() -> None:
    theirs = [np.eye(40, dtype=np.float32)]
    ours = [np.eye(40, dtype=np.float32)]
    ours[0][3] = ours[0][3, ::-1] + ours[0][4]
    assert least_cosine(theirs, theirs) == pytest.approx(1)
    assert least_cosine(ours, theirs) == 0


def test_aims_are_met_by_the_best_batch_or_not_measured(tmp_path: Path) -> None:
    own = {"model": "Qwen3-Embedding-8B", "format": "bfloat16"}
    rows = [
        {**own, "tokens": 500, "sequences": 32, "tokens_s": 50_000.0},
        {**own, "tokens": 5, "sequences": 1, "requests_s": 100.0, "times_of_reading_the_weights": 1.4},
        {**own, "tokens": 5, "sequences": 1024, "requests_s": 5_000.0},
        {"model": "Qwen3-Embedding-8B", "format": "fp8", "result": "not built"},
    ]
    (tmp_path / "throughput.json").write_text(json.dumps({"rows": rows}))
    verdicts = [row["verdict"] for row in compare_with_aims(tmp_path)]
    assert len(verdicts) == len(AIMS)
    assert verdicts == ["met", "", "", "", "met", "missed", ""]


def test_a_wait_is_named_by_file_and_line() -> None:
    found = warnings.WarningMessage("", UserWarning, "/somewhere/engine_svc/models/experts.py", 27)
    assert format_place(found) == "engine_svc/models/experts.py:27"
    assert format_place(warnings.WarningMessage("", UserWarning, "/other/file.py", 3)) == "file.py:3"
