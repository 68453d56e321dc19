"""Load reports in answers to unary calls. gRPC clients and Envoy weight pods by them (ORCA, gRFC A51 and A58).

The servicer puts a report into the trailing metadata of each answer. Streams need none: their frames carry the load.
"""

import math
import time
from collections.abc import Callable

from heddle.orca.v3.orca_load_report_pb2 import OrcaLoadReport
from heddle.v1 import item_pb2

TRAILER = "endpoint-load-metrics-bin"
# Time constant of the means that are reported.
WINDOW_S = 1.0
# Balancers ignore reports without utilization.
UTILIZATION_MIN = 0.001


class LoadReports:
    def __init__(self, load: Callable[[], item_pb2.Load], batch_tokens_max: int) -> None:
        """`load` returns the present load. The utilization is 1 if waiting and running tokens fill one batch."""
        self._load = load
        self._batch_tokens_max = batch_tokens_max
        self._at = time.monotonic()
        self._calls_per_s = self._utilization = 0.0

    def count_call(self) -> bytes:
        """Counts a call that has just been answered, and returns its report."""
        load, now = self._load(), time.monotonic()
        kept = math.exp((self._at - now) / WINDOW_S)
        self._at = now
        self._calls_per_s = self._calls_per_s * kept + 1 / WINDOW_S
        tokens = load.waiting_cost + load.running_cost
        self._utilization += (1 - kept) * (tokens / self._batch_tokens_max - self._utilization)
        return OrcaLoadReport(
            rps_fractional=self._calls_per_s,
            application_utilization=max(UTILIZATION_MIN, self._utilization),
            named_metrics={"queued_tokens": load.waiting_cost, "running_tokens": load.running_cost},
        ).SerializeToString()
