"""An OpenTelemetry collector that keeps the spans it gets over OTLP/gRPC."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from heddle.rpc.waiting import poll_until

WAIT_S_MAX = 10.0
KINDS = {
    trace_pb2.Span.SPAN_KIND_SERVER: "server",
    trace_pb2.Span.SPAN_KIND_CLIENT: "client",
    trace_pb2.Span.SPAN_KIND_INTERNAL: "internal",
}


@dataclass(frozen=True)
class Span:
    """A span, with ids in hexadecimal digits."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str  # empty for the root of a trace
    state: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[tuple[str, str]]  # trace id and span id
    is_error: bool
    message: str

    @property
    def word(self) -> str:
        return self.name.split()[0].removeprefix("heddle.v1.")

    @property
    def ids(self) -> tuple[str, str]:
        return self.trace_id, self.span_id


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    url: str = ""
    spans: list[Span] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)  # all requests
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)  # by service
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any) -> Any:
        with self._lock:
            self.raw.append(request.SerializeToString())
            for group in request.resource_spans:
                resource = values(group.resource.attributes)
                self.resources[resource["service.name"]] = resource
                for scope in group.scope_spans:
                    self.spans.extend(to_span(resource["service.name"], span) for span in scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    async def trace(self, *names: str, trace_id: str = "") -> dict[str, Span]:
        """Waits until a trace has spans with these names, and returns its spans by the first words of their names.
        Without `trace_id`, it is the only trace that has a span with the first name."""

        def found() -> dict[str, Span]:
            chosen = trace_id or next((span.trace_id for span in self.spans if span.word == names[0]), "")
            return {span.word: span for span in self.spans if span.trace_id == chosen}

        async with asyncio.timeout(WAIT_S_MAX):
            await poll_until(lambda: found().keys() >= set(names))
        return found()


def values(attributes: Any) -> dict[str, Any]:
    return {pair.key: plain(pair.value) for pair in attributes}


def plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [plain(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


def to_span(service: str, span: trace_pb2.Span) -> Span:
    return Span(
        service=service,
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        state=span.trace_state,
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        attributes=values(span.attributes),
        events=[(event.name, values(event.attributes)) for event in span.events],
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        message=span.status.message,
    )


@contextmanager
def running_collector(port: int = 0) -> Iterator[Collector]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.url = f"http://127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None)
