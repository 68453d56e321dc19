"""Answers a request, in this order: route, API key, admission, body, handler, rendering. Errors have the shape of the
route's family.

The server calls `App.answer` for each request; the handlers are in http_gateway.api.
"""

import logging
import time
from collections.abc import Mapping

from prometheus_client import Gauge, Histogram

from heddle.rpc.errors import ErrorKind
from heddle.rpc.telemetry import SECONDS_BUCKETS, request_id
from http_gateway.admission import Admission, Permit
from http_gateway.callers import Callers
from http_gateway.errors import HTTP_STATUS_OF_KIND, Failure
from http_gateway.web.compression import content_coding, decompress
from http_gateway.web.message import Request, Reserve, Response, body_size, reserve_nothing
from http_gateway.web.rendering import render
from http_gateway.web.routing import Family, Route, Router

REQUEST_SECONDS = Histogram(
    "heddle_gateway_request_seconds", "Requests by route and status", ["route", "status"], buckets=SECONDS_BUCKETS
)
REQUESTS = Gauge("heddle_gateway_requests", "Requests that are being answered, until their answers have left")
BODIES_BYTES = Gauge("heddle_gateway_bodies_bytes", "Bytes of the bodies of those requests")
ANSWERS_BYTES = Gauge("heddle_gateway_answers_bytes", "Bytes of their answers, until they have left")

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
    ) -> None:
        self._router = router
        self._callers = callers
        self._admission = admission
        self._over_limit_status = over_limit_status
        self._compressed_bytes_min = compressed_bytes_min
        self._body_bytes_max = body_bytes_max
        self._seconds: dict[tuple[str, int], Histogram] = {}
        REQUESTS.set_function(lambda: admission.requests)
        BODIES_BYTES.set_function(lambda: admission.bodies_bytes)
        ANSWERS_BYTES.set_function(lambda: admission.answers_bytes)

    async def answer(self, request: Request) -> Response:
        """Raises nothing but CancelledError, if the caller has hung up."""
        started = time.perf_counter()
        request_id.set(request.id)
        route = self._router.find(request)
        status = CLOSED_BY_CALLER
        try:
            if route.is_open:
                response = await self._handle(route, request)
            else:
                self._callers.identify(request)
                response = await self._admit(route, request)
            status = response.status
            return response
        except Exception as exception:  # noqa: BLE001 - the boundary: whatever it is, the caller gets an answer
            failure = Failure.from_exception(exception, self._statuses(route.family))
            status = failure.status
            return Response(route.family.body(failure), status, headers=failure.headers)
        finally:
            self._record(route, request, status, time.perf_counter() - started)

    def _statuses(self, family: Family) -> Mapping[ErrorKind, int]:
        return {**HTTP_STATUS_OF_KIND, ErrorKind.TOO_LARGE: self._over_limit_status or family.over_limit_status}

    async def _admit(self, route: Route, request: Request) -> Response:
        """The response takes over the permit, and releases it once it has been sent."""
        permit = Permit(self._admission)
        try:
            if request.method == "POST":
                request.body = await self._read_body(request, permit.reserve_body)
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

    async def _read_body(self, request: Request, reserve: Reserve) -> bytes:
        coding = content_coding(request.headers)
        body = await request.read(reserve)
        if coding:
            compressed_size = len(body)
            body = await decompress(body, coding, self._body_bytes_max)
            reserve(len(body) - compressed_size)
        return body

    async def _handle(self, route: Route, request: Request, reserve: Reserve = reserve_nothing) -> Response:
        answer = await route.handler(request)
        if isinstance(answer, Response):
            return answer
        return await render(answer, request.headers, compressed_bytes_min=self._compressed_bytes_min, reserve=reserve)

    def _record(self, route: Route, request: Request, status: int, seconds: float) -> None:
        key = route.path, status
        if key not in self._seconds:
            self._seconds[key] = REQUEST_SECONDS.labels(*key)
        self._seconds[key].observe(seconds)
        if log.isEnabledFor(logging.INFO):
            milliseconds = round(seconds * 1000, 3)
            fields = {"method": request.method, "path": request.path, "status": status, "milliseconds": milliseconds}
            log.info("%s %s %d %.1f ms", *fields.values(), extra={**fields, "key": request.key_name})
