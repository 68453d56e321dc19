"""Cores that a process may use: those it may run on, or what its container is limited to."""

import os
from pathlib import Path

import pytest

from heddle.cores import limit_of, usable_cores


def test_without_a_limit_all_that_it_may_run_on_count(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("written", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("nonsense", None), ("100000 0", None)]
)
def test_limit_of_a_container_is_read(tmp_path: Path, written: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(written)
    assert limit_of(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("50000", 0.5), ("-1", None)])
def test_limit_is_read_from_the_first_version_of_cgroups_too(tmp_path: Path, quota: str, cores: float | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert limit_of(tmp_path) == cores


def test_there_is_always_one_core(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("10000 100000")
    assert usable_cores(tmp_path) == 1
