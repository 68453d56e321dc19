"""A short soak. Half a minute is too short to show growth, but shows lost requests and work left behind."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

SECONDS_MAX = 180


def test_honest_callers_are_served_among_all_abuses_and_nothing_is_left_over() -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0.35"]
    soak = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert soak.returncode == 0, soak.stdout + soak.stderr
