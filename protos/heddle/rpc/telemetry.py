"""Logs and metrics of a process.

Logs go to stderr, one line per event, as text or JSON. Each `__main__` calls `start_logging` first. A line that is
written while a call is being answered carries the call's request id, in every service.

Metrics live beside what they measure, in prometheus_client's default registry, which adds the memory, CPU time and open
files of the process. Their names are heddle_<service>_<noun>_<unit>. Settings import this module on machines without
prometheus_client, so it is imported inside a function.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from heddle.rpc.settings import ConfigurationError

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

# Set by the interceptor for unary calls, and by the stream server for the items of a stream.
request_id: ContextVar[str] = ContextVar("request_id", default="")

REQUEST_ID_CHARACTERS_MAX = 128

# From 100 us (an idle service) to 10 s (a long queue).
SECONDS_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def log_request_id(request: str) -> Iterator[None]:
    """Adds the id of the request to the log lines that are written inside."""
    token = request_id.set(request)
    try:
        yield
    finally:
        request_id.reset(token)


def start_logging(service: str, *, log_format: LogFormat, log_level: LogLevel) -> None:
    """Sends all logs, and Python's warnings, to stderr. `service` is a field of each JSON line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if log_format == "json" else TextFormatter())
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


class TextFormatter(logging.Formatter):
    """Writes `12:00:01.123 info engine_svc.worker: model loaded`, and a traceback on the lines below."""

    def __init__(self) -> None:
        super().__init__("{asctime}.{msecs:03.0f} {level} {name}: {text}{request}", "%H:%M:%S", style="{")

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
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        extra = {name: value for name, value in vars(record).items() if name not in STANDARD_ATTRIBUTES}
        return json.dumps(extra | fields, default=str)


def one_line(text: str) -> str:
    """Escapes control characters, so that input cannot forge a log line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def serve_metrics(port: int, host: str = "0.0.0.0") -> int:
    """Answers GET /metrics on a separate thread until the process ends. Returns the bound port."""
    import prometheus_client

    try:
        server, _ = prometheus_client.start_http_server(port, host)
    except OSError as error:
        raise ConfigurationError(f"cannot serve metrics on {host}:{port}: {error.strerror}") from error
    return int(server.server_port)
