"""Spans of items: a server's for each that arrives, and a client's for each that is sent to another service.

A servicer serves `trace_submit(...)` in place of its own `Submit`; a `Pool` calls `start_call`.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import Cancel, Item, LargeOutcome, Outcome, ServerReply, ServerSubmit
from heddle.telemetry.logs import log_traceparent
from heddle.telemetry.traceparent import is_recorded
from heddle.telemetry.tracing import Attributes, Span, Tracing
from heddle.v1 import item_pb2

Item_contra = TypeVar("Item_contra", contravariant=True)
Outcome_contra = TypeVar("Outcome_contra", contravariant=True)
Answer = TypeVar("Answer")  # an outcome, large or not, or an error

CANCELLED = HeddleError(ErrorKind.CANCELLED, "")


class ItemSpans(Protocol[Item_contra, Outcome_contra]):
    """What the server spans of items say."""

    def begin(self, item: Item_contra) -> tuple[str, Attributes]:
        """The span's name, and what is known before the work."""

    def end(self, span: Span, outcome: Outcome_contra) -> None:
        """Adds what the outcome tells."""


def trace_submit(
    submit: ServerSubmit[Item, Outcome], tracing: Tracing | None, spans: ItemSpans[Item, Outcome]
) -> ServerSubmit[Item, Outcome]:
    """A ServerSubmit that records a span of each item whose trace is recorded, and makes it the item's context."""
    if tracing is None:
        return submit

    def traced(item: Item, deadline: float, reply: ServerReply[Outcome]) -> Cancel:
        context = item.context
        if not tracing.sample(context):
            return submit(item, deadline, reply)
        name, attributes = spans.begin(item)
        span = tracing.start(name, "SERVER", context.traceparent, attributes, tracestate=context.tracestate)
        context.traceparent = span.traceparent
        with log_traceparent(span.traceparent):
            cancel = submit(item, deadline, end_on_reply(span, reply, spans.end, is_server=True))
        return end_on_cancel(span, cancel, is_server=True)

    return traced


def end_on_reply(
    span: Span,
    reply: Callable[[Answer], None],
    describe: Callable[[Span, Any], None] | None = None,
    *,
    is_server: bool = False,
) -> Callable[[Answer], None]:
    """A Reply, or ServerReply, that also ends the span, once `describe` has added what the outcome tells."""

    def end(answer: Answer) -> None:
        outcome: Any = answer.outcome if isinstance(answer, LargeOutcome) else answer
        try:
            if describe is not None and not isinstance(outcome, HeddleError):
                describe(span, outcome)
            span.end(outcome, is_server=is_server)
        finally:  # no bug here may leave a request without its answer
            reply(answer)

    return end


def end_on_cancel(span: Span, cancel: Cancel, *, is_server: bool = False) -> Cancel:
    """A Cancel that also ends the span."""

    def end() -> None:
        span.end(CANCELLED, is_server=is_server)
        cancel()

    return end


def start_call(tracing: Tracing, method: str, context: item_pb2.ItemContext) -> Span | None:
    """The span of an item that is about to be sent, if its trace is recorded. It becomes the item's context."""
    if not is_recorded(context.traceparent):
        return None
    attributes = {"rpc.system.name": "grpc", "rpc.method": method}
    span = tracing.start(method, "CLIENT", context.traceparent, attributes, tracestate=context.tracestate)
    context.traceparent = span.traceparent
    return span
