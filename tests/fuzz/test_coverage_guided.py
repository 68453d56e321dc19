"""Each target also runs under atheris, for a second."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SECONDS_MAX = 200


def test_targets_hold() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "all", "--seconds", "1", "--seed", "1"]
    fuzzing = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert fuzzing.returncode == 0, fuzzing.stdout + fuzzing.stderr
