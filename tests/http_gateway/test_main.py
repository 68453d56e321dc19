"""The gateway as a process: what it refuses to start with."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("route", ["/embedd", "/info", "/environments/production/predict"])
def test_a_default_route_that_does_not_exist_ends_the_process_in_one_line(route: str) -> None:
    command = [sys.executable, "-m", "http_gateway", "--port", "0", "--default-route", route]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 2
    assert f"there is no POST {route} here" in line
    assert "/embed, " in line
