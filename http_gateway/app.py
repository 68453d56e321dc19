"""Answers a request: route, key, admission, body, handler, and errors in the shape of the route's family.

`http_gateway.web.server` calls `App.answer` for each request; the handlers are in http_gateway.api.
"""

import logging
import time
from collections.abc import Mapping

from prometheus_client import Gauge, Histogram

from heddle.rpc.errors import ErrorKind
from heddle.rpc.keys import ApiKeys
from heddle.rpc.telemetry import SECONDS_BUCKETS, request_id
from http_gateway.admission import Admission, Permit
from http_gateway.api.families import Family
from http_gateway.api_keys import authorization_of
from http_gateway.errors import STATUS_OF_KIND, Failure
from http_gateway.fair_share import FairShare
from http_gateway.web.inflation import coding_of, inflate
from http_gateway.web.message import Hold, Request, Response, bytes_of, uncounted
from http_gateway.web.rendering import rendered
from http_gateway.web.routing import Route, Router

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
        keys: ApiKeys,
        admission: Admission,
        share: FairShare,
        *,
        over_limit_status: int | None,
        compressed_bytes_min: int,
        body_bytes_max: int,
    ) -> None:
        self._router = router
        self._keys = keys
        self._admission = admission
        self._share = share
        self._over_limit_status = over_limit_status
        self._compressed_bytes_min = compressed_bytes_min
        self._body_bytes_max = body_bytes_max
        self._seconds: dict[tuple[str, int], Histogram] = {}
        REQUESTS.set_function(lambda: admission.requests)
        BODIES_BYTES.set_function(lambda: admission.bodies_bytes)
        ANSWERS_BYTES.set_function(lambda: admission.answers_bytes)

    async def answer(self, request: Request) -> Response:
        """Raises nothing but CancelledError, when the caller has hung up."""
        started = time.perf_counter()
        request_id.set(request.id)
        route = self._router.find(request)
        status = CLOSED_BY_CALLER
        try:
            if route.is_open:
                response = await self._handled(route, request)
            else:
                self._share.assign(request, self._keys.find(authorization_of(request.headers)))
                response = await self._permitted(route, request, Permit(self._admission))
            status = response.status
            return response
        except Exception as exception:  # noqa: BLE001 - the boundary: whatever it is, the caller gets an answer
            failure = Failure.of(exception, self._statuses_of(route.family))
            status = failure.status
            return Response(route.family.body(failure), status, headers=failure.headers)
        finally:
            self._record(route, request, status, time.perf_counter() - started)

    def _statuses_of(self, family: Family) -> Mapping[ErrorKind, int]:
        return {**STATUS_OF_KIND, ErrorKind.TOO_LARGE: self._over_limit_status or family.over_limit_status}

    async def _permitted(self, route: Route, request: Request, permit: Permit) -> Response:
        """The response takes over the permit and releases it once it has been sent."""
        try:
            if request.method == "POST":
                request.body = await self._read(request, permit.hold_body)
            response = await self._handled(route, request, permit.hold_answer)
            permit.end_answer()
            permit.hold_answer(bytes_of(response.body))  # what is still in memory
        except BaseException:
            permit.release()
            raise
        request.body = b""
        permit.end_body()
        response.release = permit.release
        return response

    async def _read(self, request: Request, hold: Hold) -> bytes:
        coding = coding_of(request.headers)
        body = await request.read(hold)
        if coding:
            sent_bytes = len(body)
            body = await inflate(body, coding, self._body_bytes_max)
            hold(len(body) - sent_bytes)
        return body

    async def _handled(self, route: Route, request: Request, hold: Hold = uncounted) -> Response:
        answer = await route.handler(request)
        if isinstance(answer, Response):
            return answer
        return await rendered(answer, request.headers, compressed_bytes_min=self._compressed_bytes_min, hold=hold)

    def _record(self, route: Route, request: Request, status: int, seconds: float) -> None:
        key = route.path, status
        if key not in self._seconds:
            self._seconds[key] = REQUEST_SECONDS.labels(*key)
        self._seconds[key].observe(seconds)
        if log.isEnabledFor(logging.INFO):
            milliseconds = round(seconds * 1000, 3)
            fields = {"method": request.method, "path": request.path, "status": status, "milliseconds": milliseconds}
            log.info("%s %s %d %.1f ms", *fields.values(), extra={**fields, "key": request.key_name})
