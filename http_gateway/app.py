"""One request from its head to its answer: route, key, admission, body, handler, and errors in the route's shape.

`http_gateway.server` calls `App.answer` for each request; the handlers are in http_gateway.routes.
"""

import logging
import time
from collections.abc import Iterable

from prometheus_client import Gauge, Histogram

from heddle.rpc.metrics import SECONDS_BUCKETS
from heddle.rpc.telemetry import request_id
from http_gateway.admission import Admission, Permit
from http_gateway.api_keys import ApiKeys
from http_gateway.errors import Failure
from http_gateway.message import Request, Response
from http_gateway.routing import Route, Router

REQUEST_SECONDS = Histogram(
    "heddle_gateway_request_seconds", "Requests by route and status", ["route", "status"], buckets=SECONDS_BUCKETS
)
REQUESTS = Gauge("heddle_gateway_requests", "Requests that are being answered")
BODIES_BYTES = Gauge("heddle_gateway_bodies_bytes", "Bytes of the bodies of those requests")

CLOSED_BY_CALLER = 499

log = logging.getLogger(__name__)


class App:
    def __init__(self, routes: Iterable[Route], keys: ApiKeys, admission: Admission) -> None:
        self._router = Router(routes)
        self._keys = keys
        self._admission = admission
        self._seconds: dict[tuple[str, int], Histogram] = {}
        REQUESTS.set_function(lambda: admission.requests)
        BODIES_BYTES.set_function(lambda: admission.bodies_bytes)

    async def answer(self, request: Request) -> Response:
        """Raises nothing but CancelledError, when the caller has hung up."""
        started = time.perf_counter()
        request_id.set(request.id)
        route = self._router.find(request)
        status = CLOSED_BY_CALLER
        try:
            response = await self._answer(route, request)
            status = response.status
            return response
        finally:
            self._record(route, request, status, time.perf_counter() - started)

    async def _answer(self, route: Route, request: Request) -> Response:
        try:
            if route.is_open:
                return await route.handler(request)
            self._keys.check(request.headers)
            with Permit(self._admission) as permit:
                if request.method == "POST":
                    request.body = await request.read(permit.hold)
                return await route.handler(request)
        except Exception as exception:  # noqa: BLE001 - the boundary: whatever it is, the caller gets an answer
            failure = Failure.of(exception)
            return Response(route.family(failure), failure.status, headers=failure.headers)

    def _record(self, route: Route, request: Request, status: int, seconds: float) -> None:
        key = route.path, status
        if key not in self._seconds:
            self._seconds[key] = REQUEST_SECONDS.labels(*key)
        self._seconds[key].observe(seconds)
        if log.isEnabledFor(logging.INFO):
            milliseconds = round(seconds * 1000, 3)
            fields = {"method": request.method, "path": request.path, "status": status, "milliseconds": milliseconds}
            log.info("%s %s %d %.1f ms", *fields.values(), extra=fields)
