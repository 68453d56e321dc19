"""Commands end quietly when the reader of their output is gone."""

import os
import subprocess
import sys

import pytest

from heddle.cli.closed_output import EXIT_CLOSED_OUTPUT, exit_if_output_closed
from heddle.rpc.settings import EXIT_MISCONFIGURED
from tests.heddle.config.configs import SEED

GATEWAY = "import sys; sys.argv = ['http-gateway', *{words}]; from heddle.cli.commands import *; gateway()"


def run_without_reader(*words: str) -> tuple[int, str]:
    """Returns exit code and stderr."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, *words],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "heddle", "--help"),
        ("-m", "heddle", "models"),
        ("-m", "heddle", "config", "schema"),  # longer than a buffer
        ("-m", "heddle", "config", "check", str(SEED / "embedding.yaml")),
        ("-c", GATEWAY.format(words=["--help"])),
    ],
)
def test_a_command_ends_quietly_when_its_reader_is_gone(words: tuple[str, ...]) -> None:
    code, log = run_without_reader(*words)
    assert "Traceback" not in log
    assert "BrokenPipe" not in log
    assert code in (EXIT_CLOSED_OUTPUT, 0)  # argparse ignores a closed output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-m", "heddle", "models"), 0),
        (("-c", GATEWAY.format(words=["--default-route", "/x"])), EXIT_MISCONFIGURED),
    ],
)
def test_a_command_without_an_output_ends_as_with_one(words: tuple[str, ...], expected: int) -> None:
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, *words]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(closed, stderr=subprocess.PIPE, text=True, check=False, env=environ)
    assert "Traceback" not in done.stderr
    assert done.returncode == expected


def test_broken_pipes_of_sockets_are_not_hidden() -> None:
    with pytest.raises(BrokenPipeError), exit_if_output_closed():
        raise BrokenPipeError
