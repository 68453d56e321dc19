"""`heddle plan` as its user meets it: tables, JSON, and mistakes in one line."""

import json
from typing import get_args

import pytest

from heddle import cli
from heddle.plan_settings import GpuName
from heddle.planning.balancing import Policy
from heddle.planning.engine import GPUS

MEASURED = ("--fixed-us", "2000", "--per-token-ns", "1000", "--sequences", "20000")


def plan(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    try:
        code = cli.main(["plan", *argv], {})
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_plan_names_the_pods_of_each_service(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = plan(capsys, *MEASURED)
    assert code == 0
    rows = {line.split()[0]: line.split() for line in output.splitlines() if line}
    assert int(rows["gateway"][1]) >= 1
    assert int(rows["tokenizer"][1]) >= 1
    assert int(rows["engine"][1]) >= 1
    assert "simulated" in rows


def test_json_holds_what_the_table_shows(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = plan(capsys, *MEASURED, "--json", "--requests-per-s", "20000", "--inputs-mean", "4")
    assert code == 0
    answer = json.loads(output)
    assert answer["p99_ms"] <= answer["p99_ms_wanted"]
    assert answer["simulated"]["p99_ms"] <= answer["p99_ms_wanted"]
    assert 0 < answer["engine"]["load"] <= 0.8
    assert 0 < answer["gateway"]["load"] <= 0.6
    assert answer["engine"]["pods"] * answer["engine"]["tokens_per_s_max"] > answer["tokens_per_s"]


def test_without_a_check_nothing_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    _, output, _ = plan(capsys, *MEASURED, "--json", "--no-check")
    assert json.loads(output)["simulated"] is None


def test_a_gpu_and_the_packaged_model_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    slow, fast = (json.loads(plan(capsys, "--gpu", gpu, "--json", "--no-check")[1]) for gpu in ("T4", "H100-SXM"))
    assert slow["engine"]["per_token_ns"] == pytest.approx(fast["engine"]["per_token_ns"] * 989 / 65)


def test_every_gpu_can_be_named() -> None:
    assert get_args(GpuName) == tuple(GPUS)


def test_simulate_compares_all_policies_at_all_loads(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("--simulate", "--engine-pods", "4", "--loads", "0.3,0.8", "--json")
    code, output, _ = plan(capsys, *MEASURED, *argv)
    assert code == 0
    results = json.loads(output)["results"]
    assert [(result["load"], result["policy"]) for result in results] == [
        (load, policy) for load in (0.3, 0.8) for policy in Policy
    ]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--p99-ms", "1", *MEASURED], "no number of pods keeps p99 below 1 ms"),
        (["--fixed-us", "100"], "fixed_us and per_token_ns go together"),
        (["--gpu", "H100-SXN"], "did you mean H100-SXM?"),
        (["--tokens-mean", "300"], "no distribution from 1 to 256 has the mean 300"),
        (["--model", "/no/such/model"], "there is no model folder /no/such/model"),
        (["--tokens-most", "9000"], "all-MiniLM-L6-v2 takes 256 at most"),
        (["--requests-per-s", "0"], "requests_per_s must be more than 0"),
        (["--loads", "1.5"], "a load must lie between 0 and 1"),
        (["--efficiency", "0"], "efficiency and slow_pods_share are shares"),
        (["--requests-per-s", "1e12", *MEASURED], "engine pods would be needed"),
    ],
)
def test_a_mistake_is_told_in_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, log = plan(capsys, *argv)
    assert (code, output) == (2, "")
    assert log.startswith("heddle plan: ")
    assert line in log
    assert log.count("\n") == 1
