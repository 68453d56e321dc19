"""One event is one log line, whatever text it contains."""

import contextlib
import io
import json
import logging
import os
from collections.abc import Iterator

import pytest

from heddle.rpc.telemetry import LogFormat, request_id, start_logging


@contextlib.contextmanager
def logging_as(log_format: LogFormat, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Returns what a process with this log format writes to stderr while it answers request abc."""
    stderr, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr("sys.stderr", stderr)
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # `start_logging` closes those it finds
    start_logging("loom", log_format=log_format, log_level="info")
    token = request_id.set("abc")
    try:
        yield stderr
    finally:
        request_id.reset(token)
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)


log = logging.getLogger("weaver")


def test_text_line_names_level_logger_and_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with logging_as("text", monkeypatch) as stderr:
        log.warning("thread %d broke", 7)
        log.debug("not shown")
    time, rest = stderr.getvalue().split(" ", 1)
    assert len(time) == len("12:00:01.123")
    assert rest == "warning weaver: thread 7 broke [request abc]\n"


def test_input_in_a_message_cannot_forge_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with logging_as("text", monkeypatch) as stderr:
        log.info("model %s", "x\n12:00:00.000 info weaver: all is well\x1b[2J é")
    assert stderr.getvalue().count("\n") == 1
    assert r"x\n12:00:00.000" in stderr.getvalue()
    assert r"\x1b[2J é" in stderr.getvalue()


def test_json_line_holds_message_request_extra_and_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with logging_as("json", monkeypatch) as stderr:
        try:
            os.environ["NO_SUCH_VARIABLE"]
        except KeyError:
            log.exception("thread\nbroke", extra={"thread_tokens": 7})
    fields = json.loads(stderr.getvalue())
    assert stderr.getvalue().count("\n") == 1
    assert (fields["level"], fields["service"], fields["logger"]) == ("error", "loom", "weaver")
    assert (fields["message"], fields["request_id"], fields["thread_tokens"]) == ("thread\nbroke", "abc", 7)
    assert "KeyError" in fields["exception"]
