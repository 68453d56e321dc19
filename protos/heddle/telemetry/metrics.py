"""The metrics of a process: declarations, values, and their text in the Prometheus format.

A service declares each metric once, in its `metrics.py`, as one of these:

    QUEUED_TOKENS = gauge("heddle_engine_queued_tokens", "Tokens that wait for a pass")

The code that is measured only adds to plain numbers and `Distribution`s, which takes 0.1 us. When Prometheus asks, a
collector (a function without arguments) reads them on another thread. prometheus_client is imported only then, because
that takes 50 ms.

Names are heddle_<service>_<noun>_<unit>, and end in _total for counters. Values of labels come from closed sets, never
from a caller's text. `DECLARED` holds all metrics of the imported modules.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric as Family

# From 100 us (an idle service) to a minute (the default limit of a request).
SECONDS_BUCKETS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)

Kind = Literal["counter", "gauge", "histogram", "untyped"]


class Distribution:
    """The values of a histogram. Not thread-safe, but may be read while another thread adds to it."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = SECONDS_BUCKETS) -> None:
        """`bounds` ascend. A value counts in the first bucket whose bound is at least the value."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


Value = float | Distribution

# By name.
DECLARED: dict[str, Metric] = {}


@dataclass(frozen=True, slots=True)
class Metric:
    kind: Kind
    name: str
    meaning: str
    labels: tuple[str, ...] = ()

    def of(self, values: Value | Mapping[Any, Value]) -> Family:
        """The samples of the metric: one value, or values by label. The key is a tuple of label values, or a string if
        the metric has one label."""
        from prometheus_client.metrics_core import Metric as Family

        name = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        family = Family(name, self.meaning, self.kind)
        # A copy, because the mapping may change while it is read. dict() makes it in one step.
        for key, value in dict(values).items() if isinstance(values, Mapping) else [((), values)]:
            labels = dict(zip(self.labels, (key,) if isinstance(key, str) else key, strict=True))
            if isinstance(value, Distribution):
                add_buckets(family, labels, value)
            else:
                family.add_sample(self.name, labels, value)
        return family


def add_buckets(family: Family, labels: Mapping[str, str], distribution: Distribution) -> None:
    from prometheus_client.utils import floatToGoString

    bounds = (*distribution.bounds, math.inf)
    counts = list(accumulate(distribution.counts))
    for bound, count in zip(bounds, counts, strict=True):
        le = floatToGoString(bound)  # type: ignore[no-untyped-call]
        family.add_sample(f"{family.name}_bucket", {**labels, "le": le}, count)
    family.add_sample(f"{family.name}_count", dict(labels), counts[-1])
    family.add_sample(f"{family.name}_sum", dict(labels), distribution.sum)


def declare(kind: Kind, name: str, meaning: str, labels: tuple[str, ...]) -> Metric:
    metric = DECLARED[name] = Metric(kind, name, meaning, labels)
    return metric


def counter(name: str, meaning: str, *labels: str) -> Metric:
    return declare("counter", name, meaning, labels)


def gauge(name: str, meaning: str, *labels: str) -> Metric:
    return declare("gauge", name, meaning, labels)


def histogram(name: str, meaning: str, *labels: str) -> Metric:
    return declare("histogram", name, meaning, labels)


def untyped(name: str, meaning: str, *labels: str) -> Metric:
    """Declares a counter whose name does not end in _total, as prometheus_client requires of counters."""
    return declare("untyped", name, meaning, labels)


Collector = Callable[[], Iterable["Family"]]


class Metrics:
    """All metrics of one service: of its collectors, and prometheus_client's own about the process."""

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = collectors
        self._registry: CollectorRegistry | None = None

    def collect(self) -> Iterable[Family]:
        """prometheus_client calls this for a registered collector."""
        for collector in self._collectors:
            yield from collector()

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """Returns the text that Prometheus reads, and its content type. `accept` is the request's Accept header."""
        import prometheus_client as prometheus
        from prometheus_client.exposition import choose_encoder

        if self._registry is None:
            registry = prometheus.CollectorRegistry()
            prometheus.ProcessCollector(registry=registry)
            prometheus.GCCollector(registry=registry)
            prometheus.PlatformCollector(registry=registry)
            registry.register(self)
            self._registry = registry  # complete, because others may read at the same time
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
