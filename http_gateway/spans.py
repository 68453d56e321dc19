"""The span of an HTTP request, by OpenTelemetry's conventions for HTTP servers. The app begins and ends it."""

from heddle.telemetry.tracing import Span, Tracing, Value
from http_gateway.settings import GatewaySettings
from http_gateway.web.message import Request
from http_gateway.web.routing import Route

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
TEXT_CHARACTERS_MAX = 256  # of a header or path of the caller


class HttpSpans:
    def __init__(self, tracing: Tracing, settings: GatewaySettings) -> None:
        self._tracing = tracing
        self._trusts_flag = settings.trust_traceparent
        self._scheme = "https" if settings.tls else "http"

    def begin(self, request: Request, route: Route) -> Span | None:
        """Decides whether the request is recorded, and begins its span if so. Writes the decision into the request's
        traceparent. Routes that need no key, such as probes, are not recorded."""
        if route.is_open or not self._tracing.sample(request, trusts_flag=self._trusts_flag):
            return None
        method = request.method if request.method in METHODS else "_OTHER"
        attributes: dict[str, Value] = {
            "http.request.method": method,
            "http.route": route.path,
            "url.path": request.path[:TEXT_CHARACTERS_MAX],
            "url.scheme": self._scheme,
            "heddle.request.id": request.id,
        }
        if agent := request.headers.get("user-agent"):
            attributes["user_agent.original"] = agent[:TEXT_CHARACTERS_MAX]
        span = self._tracing.start(
            f"{method} {route.path}", "SERVER", request.traceparent, attributes, tracestate=request.tracestate
        )
        request.traceparent = span.traceparent
        return span


def end_span(span: Span, status: int, error: str) -> None:
    """`error` is the code of a failure, or "". It is "" for status 499: the caller hung up."""
    span.set({"http.response.status_code": status})
    if status >= 400:
        span.fail(error or str(status), is_failure=status >= 500)
    span.end()
