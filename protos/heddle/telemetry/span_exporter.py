"""Exports spans. Logs once that the collector cannot be reached, and once a minute how many spans were dropped.
`heddle.telemetry.tracing` imports this module only if traces are exported.

The SDK's exporter retries on its own thread, and the SDK drops spans when 2,048 are waiting. The SDK would log each
failure and each dropped span.
"""

import logging
import math
import time
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

WARNING_S = 60.0  # between two warnings about dropped spans

log = logging.getLogger(__name__)


class SdkLogFilter(logging.Filter):
    """Suppresses the SDK's log lines about exports, keeps the last error, and counts dropped spans."""

    last = ""
    dropped_spans = 0  # because the SDK's queue was full

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            self.last = record.getMessage()
        elif str(record.msg).startswith("Queue full"):
            self.dropped_spans += 1
        return False


class HideHeaders(logging.Filter):
    """Removes the header from what the SDK logs about one that it cannot parse: it is a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.args = tuple("***" for _ in record.args or ())
        return True


SDK_LOG = SdkLogFilter()
for name in ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.sdk._shared_internal"):
    logging.getLogger(name).filters = [SDK_LOG]  # replaces the SDK's filter, which passes a line every 20 s
logging.getLogger("opentelemetry.util.re").filters = [HideHeaders()]


class Exporter(OTLPSpanExporter):
    """The SDK's batch processor calls it on its thread."""

    def __init__(self, collector: str) -> None:
        """Does not connect yet. Raises the SDK's errors for invalid variables."""
        super().__init__(collector)
        self._collector = collector
        self._is_failing = False
        self._warned_at = -math.inf

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        is_failing = result is not SpanExportResult.SUCCESS
        if is_failing and not self._is_failing:
            log.warning("traces are lost until %s accepts them: %s", self._collector, SDK_LOG.last)
        elif self._is_failing and not is_failing:
            log.info("%s accepts traces again", self._collector)
            SDK_LOG.dropped_spans = 0
        elif SDK_LOG.dropped_spans and not is_failing and time.monotonic() > self._warned_at + WARNING_S:
            log.warning("%d spans were dropped: lower trace_ratio", SDK_LOG.dropped_spans)
            SDK_LOG.dropped_spans, self._warned_at = 0, time.monotonic()
        self._is_failing = is_failing
        return result

    def shutdown(self, timeout_millis: float = 30_000, **options: object) -> None:
        if not self._shutdown:
            super().shutdown(timeout_millis, **options)
