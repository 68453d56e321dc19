"""Answers a request, in this order: route, API key, body, admission, handler, rendering. Errors have the shape of the
route's family.

The server calls `App.answer` for each request; the handlers are in http_gateway.api.
"""

import logging
import time
from collections.abc import Callable, Mapping

from heddle.rpc.errors import ErrorKind
from heddle.telemetry.logs import request_id, traceparent
from http_gateway.admission import Admission, Permit
from http_gateway.callers import Callers
from http_gateway.errors import HTTP_STATUS_OF_KIND, Failure
from http_gateway.metrics import GatewayCounts
from http_gateway.spans import HttpSpans, end_span
from http_gateway.web.compression import content_coding, decompress
from http_gateway.web.message import Request, Reserve, Response, ResponseBody, body_size, reserve_nothing
from http_gateway.web.rendering import render
from http_gateway.web.routing import UNMATCHED, Family, Route, Router

CLOSED_BY_CALLER = 499

log = logging.getLogger(__name__)


class App:
    def __init__(
        self,
        router: Router,
        callers: Callers,
        admission: Admission,
        *,
        over_limit_status: int | None,
        compressed_bytes_min: int,
        body_bytes_max: int,
        counts: GatewayCounts,
        label_model: Callable[[str], str],
        spans: HttpSpans | None = None,
        log_body: Callable[[bytes], None] | None = None,
    ) -> None:
        """`label_model` returns the served model for a model name in a request, or "", for the metrics. `log_body` is
        called with the body of each request."""
        self._router = router
        self._callers = callers
        self._admission = admission
        self._over_limit_status = over_limit_status
        self._compressed_bytes_min = compressed_bytes_min
        self._body_bytes_max = body_bytes_max
        self._counts = counts
        self._label_model = label_model
        self._spans = spans
        self._log_body = log_body

    async def answer_operations(self, request: Request) -> Response:
        """Answers only routes that need no key, such as probes. For the operations port."""
        route = self._router.find(request)
        if route.is_open:
            return await self.answer(request)
        failure = Failure(404, "not_found", "this port answers probes and metrics only")
        return Response(route.family.body(failure), failure.status)

    async def answer(self, request: Request) -> Response:
        """Raises nothing but CancelledError, if the caller has hung up."""
        started = time.perf_counter()
        request_id.set(request.id)
        route = self._router.find(request)
        span = self._spans.begin(request, route) if self._spans else None
        traceparent.set(request.traceparent)
        status, error = CLOSED_BY_CALLER, ""
        body: ResponseBody = b""
        try:
            if route.is_open:
                response = await self._handle(route, request)
            else:
                self._callers.identify(request)
                response = await self._admit(route, request)
            status, body = response.status, response.body
            return response
        except Exception as exception:  # noqa: BLE001 - the boundary: whatever it is, the caller gets an answer
            failure = Failure.from_exception(exception, self._statuses(route.family))
            status, error = failure.status, failure.code
            self._counts.failures[failure.code] += 1
            body = route.family.body(failure)
            return Response(body, status, headers=failure.headers)
        finally:
            self._record(route, request, status, body, time.perf_counter() - started)
            if span is not None:
                end_span(span, status, error)

    def _statuses(self, family: Family) -> Mapping[ErrorKind, int]:
        return {**HTTP_STATUS_OF_KIND, ErrorKind.TOO_LARGE: self._over_limit_status or family.over_limit_status}

    async def _admit(self, route: Route, request: Request) -> Response:
        """The response takes over the permit, and releases it once it has been sent."""
        self._admission.check_room()
        has_body = request.method == "POST"
        coding = content_coding(request.headers) if has_body else ""
        body = await request.read() if has_body else b""
        request.body_bytes = len(body)
        permit = Permit(self._admission, len(body))
        try:
            request.body = await self._decompress(body, coding, permit.reserve_body) if coding else body
            if self._log_body is not None and request.body:
                self._log_body(request.body)
            response = await self._handle(route, request, permit.reserve_answer)
            permit.release_answer()  # what was reserved while it grew: compression may have made it smaller
            permit.reserve_answer(body_size(response.body))
        except BaseException:
            permit.release()
            raise
        request.body = b""
        permit.release_body()
        response.release = permit.release
        return response

    async def _decompress(self, body: bytes, coding: str, reserve: Reserve) -> bytes:
        decompressed = await decompress(body, coding, self._body_bytes_max)
        reserve(len(decompressed) - len(body))
        return decompressed

    async def _handle(self, route: Route, request: Request, reserve: Reserve = reserve_nothing) -> Response:
        answer = await route.handler(request)
        if isinstance(answer, Response):
            return answer
        return await render(answer, request.headers, compressed_bytes_min=self._compressed_bytes_min, reserve=reserve)

    def _record(self, route: Route, request: Request, status: int, body: ResponseBody, seconds: float) -> None:
        """Counts the request and writes the access line, for probes at debug level. `body` is that of the answer."""
        model = self._label_model(request.model) if route.method == "POST" else ""
        self._counts.count(request, route.path, model, status, seconds)
        level = logging.DEBUG if route.is_open and route.path != UNMATCHED else logging.INFO
        if log.isEnabledFor(level):
            milliseconds = round(seconds * 1000, 3)
            fields = {"method": request.method, "path": request.path, "status": status, "milliseconds": milliseconds}
            more = {
                "route": route.path,
                "model": model,
                "tokens": request.tokens,
                "request_bytes": request.body_bytes,
                "response_bytes": body_size(body),
                "key": request.key_name,
                "client": self._callers.find_address(request),
            }
            log.log(level, "%s %s %d %.1f ms", *fields.values(), extra=fields | more)
