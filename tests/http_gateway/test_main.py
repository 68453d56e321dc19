"""The gateway as a process refuses wrong settings."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("route", ["/embedd", "/info", "/environments/production/predict"])
def test_a_default_route_that_does_not_exist_ends_the_process_in_one_line(route: str) -> None:
    command = [sys.executable, "-m", "http_gateway", "--port", "0", "--log-level", "error", "--default-route", route]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 2
    assert f"there is no POST {route} here" in line
    assert "/embed, " in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--cors-origins", "https://app.example.com/"),
            "'https://app.example.com/' is not an origin as browsers send it",
        ),
        (("--api-keys-file", "/nowhere/keys"), "api_keys_file: cannot read /nowhere/keys"),
        (("--best-priority", "-1"), "best_priority must be at least 0"),
    ],
)
def test_wrong_settings_end_the_process_in_one_line(flags: tuple[str, str], words: str) -> None:
    command = [sys.executable, "-m", "http_gateway", "--port", "0", "--log-level", "error", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 2
    assert words in line
