"""Reports of builds, in a terminal and in the manifest."""

import json
from dataclasses import replace

from engine_svc.build.report import Closeness, Report, Scores, Size, Speed

VECTORS = Report(
    quantization="fp8",
    texts=34,
    source=Size(files=90_900_000, memory=45_400_000),
    built=Size(files=56_100_000, memory=34_800_000),
    cosine=Closeness(0.999123456, 0.991234567, "A long text " * 20),
    speed=Speed(source=1234.5, built=2469.0),
)
RANKING = replace(VECTORS, cosine=None, scores=Scores(0.00312, 0.02, "which text", 0.9987, is_ranking=True))


def test_the_table_shows_sizes_speed_and_the_worst_text() -> None:
    assert VECTORS.to_table().splitlines() == [
        "                    source       built",
        "weight files       90.9 MB     56.1 MB  -38 %",
        "in memory          45.4 MB     34.8 MB  -23 %",
        "tokens/s             1,234       2,469  2.00 times",
        "cosine to the source on 34 other texts: mean 0.9991",
        "  worst 0.9912: A long text A long text A long text A long text A long text…",
    ]


def test_the_table_of_a_reranker_shows_differences_of_scores() -> None:
    assert RANKING.to_table().splitlines()[4:] == [
        "scores against the source on 34 other texts: mean difference 0.0031, rank correlation 0.9987",
        "  largest difference 0.0200: which text",
    ]
    assert RANKING.scores is not None
    classifier = replace(RANKING, scores=replace(RANKING.scores, is_ranking=False))
    assert "same best label 0.9987" in classifier.to_table()


def test_the_manifest_has_no_times_and_rounded_numbers() -> None:
    content = json.loads(json.dumps(VECTORS.to_json()))
    assert content == {
        "quantization": "fp8",
        "texts": 34,
        "source": {"files": 90_900_000, "memory": 45_400_000},
        "built": {"files": 56_100_000, "memory": 34_800_000},
        "cosine": {
            "mean": 0.9991,
            "worst": 0.9912,
            "worst_text": "A long text A long text A long text A long text A long text…",
        },
    }
    assert replace(VECTORS, speed=None).to_json() == VECTORS.to_json()


def test_large_changes_give_a_one_line_warning() -> None:
    assert VECTORS.warning() is None
    assert RANKING.warning() is None
    assert VECTORS.cosine is not None
    assert RANKING.scores is not None
    for report, number in (
        (replace(VECTORS, cosine=replace(VECTORS.cosine, worst=0.9)), "0.900"),
        (replace(VECTORS, cosine=replace(VECTORS.cosine, worst=float("nan"))), "nan"),
        (replace(RANKING, scores=replace(RANKING.scores, largest_difference=0.3)), "0.300"),
    ):
        warning = report.warning()
        assert warning is not None
        assert number in warning
        assert "\n" not in warning
