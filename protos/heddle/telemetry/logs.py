"""Logging of a process: one line per event on stderr, as text or JSON. Each `__main__` calls `start_logging` first. In
every service, a line that is written while a call is being answered has the request id of the call.
"""

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Literal

from heddle.telemetry.traceparent import span_id, trace_id

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

# Set by the interceptor for unary calls, and by the stream server for the items of a stream.
request_id: ContextVar[str] = ContextVar("request_id", default="")

# W3C trace context of the call, or of the span that answers it; empty without one.
traceparent: ContextVar[str] = ContextVar("traceparent", default="")

REQUEST_ID_CHARACTERS_MAX = 128

# Request id and trace context, kept for lines about a request that are written outside of its call.
LogContext = tuple[str, str]

# A line about several requests names this many.
REQUESTS_NAMED_MAX = 8

# The field of a line that holds a table, a list of rows with the same keys: see `heddle.rpc.settings_table`.
TABLE_FIELD = "settings"

# Our loggers. Libraries log below info what only their authors need, for each call.
OWN_LOGGERS = ("heddle", "engine_svc", "tokenizer_svc", "http_gateway", "__main__")

STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def log_request_id(request: str, trace: str = "") -> Iterator[None]:
    """Adds a request id and a trace context to the log lines written inside the block."""
    token = request_id.set(request)
    try:
        with log_traceparent(trace):
            yield
    finally:
        request_id.reset(token)


@contextmanager
def log_traceparent(trace: str) -> Iterator[None]:
    """Adds only the trace context."""
    token = traceparent.set(trace)
    try:
        yield
    finally:
        traceparent.reset(token)


def log_context() -> LogContext:
    """The context of the request that is being answered; two empty strings without one."""
    return request_id.get(), traceparent.get()


def log_requests(contexts: Iterable[LogContext]) -> AbstractContextManager[None]:
    """Adds the ids of several requests, separated by commas, to the log lines written inside the block. Adds the trace
    context if there is only one request."""
    distinct = dict(context for context in contexts if context[0])
    names = [*islice(distinct, REQUESTS_NAMED_MAX), *(["..."] if len(distinct) > REQUESTS_NAMED_MAX else [])]
    return log_request_id(",".join(names), *(distinct.values() if len(distinct) == 1 else ()))


def start_logging(service: str, *, log_format: LogFormat, log_level: LogLevel) -> None:
    """Sends all logs, and Python's warnings, to stderr. `service` is a field of each JSON line. Lines of level debug
    are those of Heddle only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if log_format == "json" else TextFormatter())
    logging.basicConfig(level="INFO" if log_level == "debug" else log_level.upper(), handlers=[handler], force=True)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel("DEBUG" if log_level == "debug" else "NOTSET")  # NOTSET: that of the root
    logging.captureWarnings(capture=True)


class TextFormatter(logging.Formatter):
    """Writes `12:00:01.123 info engine_svc.worker: model loaded`, and a traceback or a table on the lines below."""

    def __init__(self) -> None:
        super().__init__("{asctime}.{msecs:03.0f} {level} {name}: {text}{request}", "%H:%M:%S", style="{")

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join((super().format(record), *align(getattr(record, TABLE_FIELD, ()))))

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.level = record.levelname.lower()
        record.text = one_line(record.message)
        record.request = f" [request {one_line(request_id.get())}]" if request_id.get() else ""
        return super().formatMessage(record)

    def usesTime(self) -> bool:
        return True


class JsonFormatter(logging.Formatter):
    """Writes one object per line. The `extra=` of a log call becomes fields of it."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self.service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id.get():
            fields["request_id"] = request_id.get()
        if trace := traceparent.get():
            fields["trace_id"], fields["span_id"] = trace_id(trace), span_id(trace)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        extra = {name: value for name, value in vars(record).items() if name not in STANDARD_ATTRIBUTES}
        return json.dumps(fields | extra | fields, default=str)  # the standard fields first, and kept


def align(table: Sequence[Mapping[str, str]]) -> list[str]:
    """Formats rows as indented lines with aligned columns."""
    rows = [[one_line(cell) for cell in row.values()] for row in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def one_line(text: str) -> str:
    """Escapes control characters, so that input cannot forge a log line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
