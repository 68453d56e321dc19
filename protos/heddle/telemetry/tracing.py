"""Traces: sends the spans of recorded requests to an OpenTelemetry collector, over OTLP/gRPC.

A service makes a `Tracing` if a collector is set. Only then is opentelemetry imported. The first service that a request
reaches decides whether its trace is recorded. The others follow the flag in its `traceparent`, so a request that is not
recorded costs them only a check of this flag.

Spans hold sizes, times and kinds of errors. They never hold a caller's text, nor an error message, which may quote it.
"""

import asyncio
import contextlib
import importlib.metadata
import random
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.settings import ConfigurationError
from heddle.rpc.waiting import poll_until
from heddle.telemetry.traceparent import (
    TRACEPARENT_CHARACTERS,
    is_recorded,
    new_unrecorded,
    read_traceparent,
    read_tracestate,
    set_recorded,
)

if TYPE_CHECKING:
    from opentelemetry import trace as api

Kind = Literal["SERVER", "CLIENT", "INTERNAL"]
Value = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Value]

# Time that a stopping process has to send its last spans.
FLUSH_S_MAX = 2.0

# Errors of the caller. By OpenTelemetry's conventions for servers, they do not mark a span as failed.
CALLER_ERRORS = frozenset(
    {
        ErrorKind.INVALID_INPUT,
        ErrorKind.EMPTY_INPUT,
        ErrorKind.TOO_LARGE,
        ErrorKind.WRONG_TASK,
        ErrorKind.MODEL_NOT_FOUND,
        ErrorKind.UNAUTHENTICATED,
        ErrorKind.CANCELLED,
    }
)


class Carrier(Protocol):
    """A message with the trace context of a request, such as an ItemContext."""

    traceparent: str
    tracestate: str


class Span:
    """A span that is being recorded."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: "api.Span") -> None:
        context = span.get_span_context()
        self._span = span
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 3:02x}"

    def set(self, attributes: Attributes) -> None:
        if self._span.is_recording():  # an item may be sent again after it was cancelled, when its span has ended
            self._span.set_attributes(attributes)

    def add_event(self, name: str, attributes: Attributes) -> None:
        if self._span.is_recording():
            self._span.add_event(name, attributes)

    def record_attempt(self, address: str) -> None:
        """Records that a call was sent to an address. The span keeps the last address."""
        self.set({"server.address": address})
        self.add_event("sent", {"server.address": address})

    def fail(self, error_type: str, *, is_failure: bool = True) -> None:
        """`is_failure` is false for an error of the caller."""
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("error.type", error_type)
        if is_failure:
            self._span.set_status(StatusCode.ERROR, error_type.upper())

    def end(self, outcome: object = None, *, at_ns: int | None = None, is_server: bool = False) -> None:
        """Records an outcome that is an error. A second call has no effect, because a cancelled item may still be
        answered."""
        if not self._span.is_recording():
            return
        if isinstance(outcome, HeddleError):
            is_failure = not (is_server and outcome.kind in CALLER_ERRORS)
            self.fail(outcome.kind.name.lower(), is_failure=is_failure)
        self._span.end(at_ns)


class Tracing:
    """The spans of one service. May be used from any thread."""

    def __init__(self, service: str, collector: str, ratio: float) -> None:
        """`ratio` is the share of requests without a context that are recorded. Raises ConfigurationError for variables
        of OpenTelemetry that cannot be used."""
        from opentelemetry import trace as api
        from opentelemetry.context import Context
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        from heddle.telemetry.span_exporter import Exporter

        self._api, self._no_parent = api, Context()
        self._ratio = ratio
        version = importlib.metadata.version("heddle")
        own = {"service.name": service, "service.version": version, "host.name": socket.gethostname()}
        # service.instance.id is the SDK's, new for each process. The operator's variables come last.
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        try:
            self._exporter = Exporter(collector)
            self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)  # `sample` samples
            self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        except Exception as error:
            raise ConfigurationError(f"cannot send traces to {collector}: {error}") from error
        self._tracer = self._provider.get_tracer("heddle", version)

    def sample(self, carrier: Carrier, *, trusts_flag: bool = True) -> bool:
        """Decides whether the trace of a request that has just arrived is recorded. Writes the decision into the
        carrier, and drops an invalid context. Without `trusts_flag`, the caller's trace continues, but its flag is
        ignored."""
        stated = carrier.traceparent
        if trusts_flag and stated.endswith("-00") and len(stated) == TRACEPARENT_CHARACTERS:  # nearly all items
            return False
        valid = read_traceparent(stated) if stated else ""
        if not valid:
            carrier.tracestate = ""
        if valid and trusts_flag:
            recorded = is_recorded(valid)
        else:
            recorded = random.random() < self._ratio
            valid = set_recorded(valid, recorded=recorded) if valid else "" if recorded else new_unrecorded()
        carrier.traceparent = valid
        return recorded

    def start(
        self,
        name: str,
        kind: Kind,
        traceparent: str,
        attributes: Attributes,
        *,
        tracestate: str = "",
        links: Sequence[str] = (),
        at_ns: int | None = None,
    ) -> Span:
        """Starts a span under the context `traceparent`, or a new trace if it is empty. `links` are contexts too.
        `at_ns` is the start in time.time() nanoseconds; None means now."""
        api = self._api
        context = self._no_parent
        if traceparent:
            remote = api.NonRecordingSpan(self._to_context(traceparent, tracestate))
            context = api.set_span_in_context(remote, self._no_parent)
        return Span(
            self._tracer.start_span(
                name,
                context,
                getattr(api.SpanKind, kind),
                attributes,
                links=[api.Link(self._to_context(link)) for link in links],
                start_time=at_ns,
            )
        )

    def record(
        self, name: str, parent: str, begin_ns: int, end_ns: int, attributes: Attributes, *, links: Sequence[str] = ()
    ) -> Span:
        """Records a span that has ended, inside a service. Times are in time.time() nanoseconds."""
        span = self.start(name, "INTERNAL", parent, attributes, links=links, at_ns=begin_ns)
        span.end(at_ns=end_ns)
        return span

    async def close(self) -> None:
        """Sends the remaining spans, for up to FLUSH_S_MAX."""
        flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
        flushing.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(poll_until(lambda: not flushing.is_alive()), FLUSH_S_MAX)
        self._exporter.shutdown()  # ends its retries

    def _to_context(self, traceparent: str, tracestate: str = "") -> "api.SpanContext":
        return self._api.SpanContext(
            int(traceparent[3:35], 16),
            int(traceparent[36:52], 16),
            is_remote=True,
            trace_flags=self._api.TraceFlags(int(traceparent[53:55], 16)),
            trace_state=self._api.TraceState.from_header([read_tracestate(tracestate)]) if tracestate else None,
        )


def start_tracing(service: str, collector: str, ratio: float) -> Tracing | None:
    """Returns None without a collector. Raises ConfigurationError."""
    return Tracing(service, collector, ratio) if collector else None


async def close_tracing(tracing: Tracing | None) -> None:
    if tracing is not None:
        await tracing.close()


def to_ns(monotonic: float) -> int:
    """Converts time.monotonic() seconds to time.time() nanoseconds."""
    return time.time_ns() - round((time.monotonic() - monotonic) * 1e9)
