"""The report and its measurements, written and read back."""

from pathlib import Path

import pytest

from tests.bench.aims import aims
from tests.bench.figures import Figures
from tests.bench.measurement import BARE, CEILING, OURS, EngineFigure, Measurement, PrefixFigure, Results
from tests.bench.report import rendered

INFINITY = "Infinity bfloat16"
MACHINE = {
    "date": "2026-11-24T08:00",
    "commit": "abc",
    "processor": "P",
    "cores": 2,
    "matrix instructions": ["amx_bf16"],
    "memory_gib": 24.0,
    "load_before": 0.1,
    "system": "Linux",
    "python": "3.11.7",
    "versions": {"torch": "2.13.0"},
}


def closed(server: str, per_second: float, *, turn: int = 0, **more: object) -> Measurement:
    settings: dict[str, object] = {"connections": 256, "p50_ms": 2.0, "p90_ms": 3.0, "p99_ms": 4.0, **more}
    answers = round(per_second * 2)
    return Measurement(
        *("closed", "short", server, turn),
        **{"share": 0.0, "seconds": 2.0, "answers": answers, "inputs": answers, "tokens": 5 * answers, **settings},  # type: ignore[arg-type]
    )


def results() -> Results:
    cpu = {"http_gateway": 50.0, "tokenizer_svc": 40.0, "engine_svc": 900.0, "load": 30.0}
    return Results(
        MACHINE,
        {"seconds": 2, "rounds": 2},
        ["skipped: tei: none on PATH"],
        [
            closed(OURS, 1000, cpu_us=cpu),
            closed(INFINITY, 100),
            closed(OURS, 100, turn=1, cpu_us=cpu),
            closed(INFINITY, 10, turn=1),
            closed(BARE, 1250),
        ],
        [EngineFigure("bfloat16", "16x128", OURS, 50_000), EngineFigure("bfloat16", "16x128", CEILING, 100_000)],
        [PrefixFigure(512, 0.5, 2.5)],
    )


def test_a_report_says_what_was_measured_on_what_and_what_was_left_out() -> None:
    report = rendered(results(), {"throughput": "throughput.png"})
    assert "amx_bf16" in report
    assert "* skipped: tei: none on PATH" in report
    assert "| 256 connections | Infinity bfloat16 | 55 | ≥ 2.0 | ≥ 3.0 | ≥ 4.0 | 0 |  | 10.00 |" in report
    assert "gateway 50, tokenizer 40, engine 900" in report
    assert "| bfloat16 | 16x128 | 50,000 | 100,000 | 50% |" in report
    assert "| 512 | 500 | 2,500 | 5.00 |" in report
    assert "](throughput.png)" in report


def test_the_aims_are_judged_by_turns_of_one_round() -> None:
    by_what = {aim.what: aim for aim in aims(Figures(results().measurements, results().engine))}
    assert by_what["5 tokens, 256 connections: over Infinity bf16"].got == pytest.approx(10)
    assert by_what["throughput of the bare engine left over HTTP: short"].got == pytest.approx(0.8)
    assert by_what["CPU of gateway and tokenizer per 5-token request, 256 connections"].got == pytest.approx(90)
    assert by_what["engine, bf16, 16x128"].verdict == "no"
    assert by_what["p99 of single queries in the storm over alone"].verdict == "not measured"


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "of a day" / "measurements.json"
    results().write(path)
    assert Results.read(path) == results()
