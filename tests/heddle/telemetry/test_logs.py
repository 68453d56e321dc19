"""One event is one log line, whatever text it contains."""

import contextlib
import io
import json
import logging
import os
from collections.abc import Iterator

import pytest

from heddle.telemetry.logs import OWN_LOGGERS, LogFormat, LogLevel, log_request_id, request_id, start_logging


@contextlib.contextmanager
def logging_as(
    log_format: LogFormat, monkeypatch: pytest.MonkeyPatch, log_level: LogLevel = "info"
) -> Iterator[io.StringIO]:
    """Returns what a process with this log format writes to stderr while it answers request abc."""
    stderr, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr("sys.stderr", stderr)
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # `start_logging` closes those it finds
    start_logging("loom", log_format=log_format, log_level=log_level)
    token = request_id.set("abc")
    try:
        yield stderr
    finally:
        request_id.reset(token)
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)
        for name in OWN_LOGGERS:
            logging.getLogger(name).setLevel(logging.NOTSET)


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


def test_json_line_holds_the_trace_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with logging_as("json", monkeypatch) as stderr:
        with log_request_id("abc", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"):
            log.info("inside")
        log.info("outside")
    inside, outside = map(json.loads, stderr.getvalue().splitlines())
    assert (inside["trace_id"], inside["span_id"]) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    assert not {"trace_id", "span_id"} & outside.keys()


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


def test_debug_lines_are_those_of_heddle_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with logging_as("text", monkeypatch, "debug") as stderr:
        for name in ("asyncio", "grpc._cython.cygrpc", "heddle.rpc.pod", "engine_svc.worker"):
            logging.getLogger(name).debug("hello from %s", name)
        logging.getLogger("asyncio").info("slow")
    lines = stderr.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ["heddle.rpc.pod:", "engine_svc.worker:", "asyncio:"]
