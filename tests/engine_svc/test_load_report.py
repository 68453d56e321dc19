"""Load reports are means over about a second."""

import time

import pytest

from engine_svc.load_report import UTILIZATION_MIN, LoadReports
from heddle.orca.v3.orca_load_report_pb2 import OrcaLoadReport
from heddle.v1 import item_pb2


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("waiting", "running"), [(0, 0), (300, 200), (3000, 1000)])
def test_a_report_has_calls_per_second_and_utilization(clock: list[float], waiting: int, running: int) -> None:
    load = item_pb2.Load(waiting_cost=waiting, running_cost=running)
    reports = LoadReports(lambda: load, batch_tokens_max=1000)
    for _ in range(100):
        clock[0] += 0.1
        report = OrcaLoadReport.FromString(reports.count_call())
    assert report.rps_fractional == pytest.approx(10, rel=0.1)
    assert report.application_utilization == pytest.approx(max(UTILIZATION_MIN, (waiting + running) / 1000), rel=0.01)
    assert report.named_metrics == {"queued_tokens": waiting, "running_tokens": running}


def test_a_single_reading_changes_the_mean_little(clock: list[float]) -> None:
    load = item_pb2.Load()
    reports = LoadReports(lambda: load, batch_tokens_max=1000)
    clock[0] += 10
    reports.count_call()
    load.waiting_cost = 10_000
    clock[0] += 0.01
    report = OrcaLoadReport.FromString(reports.count_call())
    assert report.application_utilization < 0.2
