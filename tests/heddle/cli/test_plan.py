"""`heddle plan` as a user sees it: tables, JSON, help, and errors of one line."""

import json
from typing import Any

import pytest

from heddle.cli import main
from heddle.cli.data_sheets import GPUS
from heddle.cli.plan import PlanSettings
from heddle.rpc.settings_source import read_documentation

MEASURED = ("--fixed-us", "2000", "--per-token-ns", "1000")


def plan(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr."""
    try:
        code = main.main(["plan", *argv], {})
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def figures(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    code, output, log = plan(capsys, "--json", *argv)
    assert (code, log) == (0, "")
    answer: dict[str, Any] = json.loads(output)
    return answer


def test_the_table_shows_the_pods_of_each_service(capsys: pytest.CaptureFixture[str]) -> None:
    answer = figures(capsys, *MEASURED, "--requests-per-s", "20000")
    code, output, _ = plan(capsys, *MEASURED, "--requests-per-s", "20000")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in output.splitlines() if line}
    for service in ("gateway", "tokenizer", "engine"):
        assert int(rows[service][1]) == answer[service]["pods"]
    assert float(rows["total,"][-1]) == pytest.approx(answer["p99_ms"], abs=0.06)


def test_the_plan_meets_the_goals(capsys: pytest.CaptureFixture[str]) -> None:
    answer = figures(capsys, *MEASURED, "--requests-per-s", "20000", "--inputs-mean", "4")
    assert answer["p99_ms"] <= answer["p99_ms_wanted"] == 50
    assert 0 < answer["engine"]["load"] <= 0.8
    assert 0 < answer["gateway"]["load"] <= 0.6
    assert answer["engine"]["pods"] * answer["engine"]["tokens_per_s_max"] > answer["tokens_per_s"] == 8e6


def test_the_speed_of_an_engine_follows_the_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    slow, fast = (figures(capsys, "--gpu", gpu)["engine"] for gpu in ("T4", "H100-SXM"))
    assert slow["per_token_ns"] == pytest.approx(fast["per_token_ns"] * 989 / 65)
    assert slow["memory_gb"] == fast["memory_gb"] > 0


def test_a_measured_throughput_replaces_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    answer = figures(capsys, "--tokens-per-s", "450000", "--requests-per-s", "9000")
    assert answer["engine"]["tokens_per_s_max"] == pytest.approx(450_000)
    assert answer["engine"]["pods"] == 3  # 900,000 tokens/s at 80 % load


def test_the_cost_is_that_of_all_pods(capsys: pytest.CaptureFixture[str]) -> None:
    prices = ("--engine-price", "2", "--cpu-price", "0.1", "--requests-per-s", "20000")
    answer = figures(capsys, *MEASURED, *prices)
    cpu_pods = answer["gateway"]["pods"] + answer["tokenizer"]["pods"]
    assert answer["cost_per_hour"] == pytest.approx(2 * answer["engine"]["pods"] + 0.1 * cpu_pods)
    assert answer["cost_per_million_tokens"] == pytest.approx(answer["cost_per_hour"] / 7200)  # 2 million a second
    assert f"Cost: {answer['cost_per_hour']:.2f} per hour" in plan(capsys, *MEASURED, *prices)[1]


def test_help_has_examples_on_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = plan(capsys, "--help")
    assert code == 0
    examples = [line.split() for line in output.splitlines() if line.startswith("    heddle plan ")]
    assert len(examples) >= 3
    flags = set(output.partition("options:")[2].replace(",", " ").split())
    for example in examples:
        assert {word for word in example if word.startswith("--")} <= flags


def test_help_names_every_gpu() -> None:
    assert not [name for name in GPUS if name not in read_documentation(PlanSettings)["gpu"].help]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--p99-ms", "1", *MEASURED], "no number of engine pods keeps p99 below 1 ms"),
        (["--fixed-us", "100"], "fixed_us and per_token_ns must be set together"),
        (["--tokens-per-s", "100", *MEASURED], "cannot be combined with tokens_per_s"),
        (["--gpu", "H100-SXN"], "did you mean H100-SXM?"),
        (["--gpu", "h100-sxm"], "did you mean H100-SXM?"),
        (["--gpu", "h100"], "H200, B200\n"),
        (["--tokens-mean", "300"], "all-MiniLM-L6-v2 takes at most 256"),
        (["--model", "/no/such/model"], "there is no model folder /no/such/model"),
        (["--requests-per-s", "0"], "requests_per_s must be more than 0"),
        (["--engine-price", "-1"], "engine_price must be at least 0"),
        (["--cpu-load-max", "1.5"], "cpu_load_max must be between 0 and 1"),
        (["--efficiency", "2"], "efficiency must be at most 1"),
        (["--requests-per-s", "1e12", *MEASURED], "engine pods; the most that is planned"),
        (["--gpu", "T4", "--batch-tokens-max", "2000000"], "GB for weights and a full batch; T4 has 16 GB"),
    ],
)
def test_a_mistake_is_reported_in_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, log = plan(capsys, *argv)
    assert (code, output) == (2, "")
    assert log.startswith("heddle plan: ")
    assert line in log
    assert log.count("\n") == 1
