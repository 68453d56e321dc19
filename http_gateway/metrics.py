"""The metrics of a gateway. `App` counts requests, and `Operations` serves the metrics at /metrics.

The labels `route` and `model` have only values that the gateway serves: an unknown path counts as `unmatched`, and an
unknown model as "".
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from heddle.rpc.errors import ErrorKind
from heddle.rpc.metrics import collect_pools
from heddle.telemetry.metrics import Distribution, counter, gauge, histogram
from http_gateway.admission import Admission
from http_gateway.api.served_models import ServedModels
from http_gateway.errors import CODE_OF_KIND
from http_gateway.web.bodies import WaitingBodies
from http_gateway.web.crowd import Crowd
from http_gateway.web.message import Request

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

REQUEST_SECONDS = histogram(
    "heddle_gateway_request_seconds",
    "Duration of requests, from their headers to their answer; status 499: the caller hung up",
    *("route", "model", "status"),
)
FAILURES = counter("heddle_gateway_failures_total", "Requests answered with an error, by error code", "code")
TOKENS = counter("heddle_gateway_tokens_total", "Tokens of answered requests", "route", "model")
CHARACTERS = counter("heddle_gateway_characters_total", "Characters of answered requests", "route", "model")
TRUNCATED = counter(
    "heddle_gateway_truncated_inputs_total",
    "Inputs of answered requests that were truncated",
    *("route", "model"),
)
WAITING_BODIES = gauge("heddle_gateway_waiting_bodies", "Request bodies that are still arriving")
WAITING_BYTES = gauge("heddle_gateway_waiting_bodies_bytes", "Bytes received of large bodies that are still arriving")
ENDED_BODIES = counter(
    "heddle_gateway_ended_bodies_total", "Bodies ended with 408: paused too long, or crowded out", "reason"
)
CLOSED_IDLE = counter("heddle_gateway_closed_idle_connections_total", "Idle connections closed to make room for others")
REQUESTS = gauge("heddle_gateway_requests", "Requests in progress, until their answers are sent")
REQUESTS_MAX = gauge("heddle_gateway_requests_max", "Limit of requests in progress; beyond it 429")
BODIES_BYTES = gauge("heddle_gateway_bodies_bytes", "Bytes of the bodies of requests in progress")
ANSWERS_BYTES = gauge("heddle_gateway_answers_bytes", "Bytes of answers in progress, until they are sent")


# Samples that exist before their first event. Prometheus does not see an increase from a missing sample.
CODES = {CODE_OF_KIND.get(kind, kind.name.lower()): 0 for kind in ErrorKind}


class GatewayCounts:
    """Used on one event loop."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str, str], Distribution] = defaultdict(Distribution)  # by route, model, status
        self.failures: dict[str, int] = defaultdict(int)  # by code
        self.tokens: dict[tuple[str, str], int] = defaultdict(int)  # by route and model, as are the next two
        self.characters: dict[tuple[str, str], int] = defaultdict(int)
        self.truncated_inputs: dict[tuple[str, str], int] = defaultdict(int)

    def count(self, request: Request, route: str, model: str, status: int, seconds: float) -> None:
        """Counts a request that has ended. `model` is the name of a served model, or ""."""
        self.seconds[route, model, str(status)].observe(seconds)
        if request.tokens or request.characters:
            self.tokens[route, model] += request.tokens
            self.characters[route, model] += request.characters
            self.truncated_inputs[route, model] += request.truncated_inputs


def collect_connections(bodies: WaitingBodies, crowd: Crowd) -> Iterable["Family"]:
    yield WAITING_BODIES.of(len(bodies))
    yield WAITING_BYTES.of(bodies.bytes)
    yield ENDED_BODIES.of(bodies.ended)
    yield CLOSED_IDLE.of(crowd.closed)


class GatewayMetrics:
    def __init__(self, counts: GatewayCounts, admission: Admission, models: ServedModels) -> None:
        self._counts = counts
        self._admission = admission
        self._models = models

    def collect(self) -> Iterable["Family"]:
        counts, admission = self._counts, self._admission
        yield REQUEST_SECONDS.of(counts.seconds)
        yield FAILURES.of(CODES | counts.failures)
        yield TOKENS.of(counts.tokens)
        yield CHARACTERS.of(counts.characters)
        yield TRUNCATED.of(counts.truncated_inputs)
        yield REQUESTS.of(admission.requests)
        yield REQUESTS_MAX.of(admission.requests_max)
        yield BODIES_BYTES.of(admission.bodies_bytes)
        yield ANSWERS_BYTES.of(admission.answers_bytes)
        yield from collect_pools(self._models.pools())
