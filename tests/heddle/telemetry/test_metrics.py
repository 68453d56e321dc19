"""The values and the text of metrics, and the rules for their names."""

import re

import pytest

from heddle.telemetry.metrics import Distribution, Metric, Metrics
from tests.metrics import list_metrics


def text_of(metric: Metric, values: object) -> list[str]:
    text, _ = Metrics(lambda: [metric.of(values)]).expose()  # type: ignore[arg-type]
    return [line for line in text.decode().splitlines() if "loom" in line]


def test_a_value_counts_in_the_first_bucket_whose_bound_is_not_below_it() -> None:
    distribution = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 3.0):
        distribution.observe(value)
    distribution.observe(2.0, times=3)
    assert (distribution.counts, distribution.sum) == ([2, 4, 1], 12.0)


def test_the_text_is_in_the_prometheus_format() -> None:
    distribution = Distribution((0.1, 5.0))
    distribution.observe(0.2)
    assert text_of(Metric("histogram", "loom_seconds", "How long", ("route",)), {"/a": distribution}) == [
        "# HELP loom_seconds How long",
        "# TYPE loom_seconds histogram",
        'loom_seconds_bucket{le="0.1",route="/a"} 0.0',
        'loom_seconds_bucket{le="5.0",route="/a"} 1.0',
        'loom_seconds_bucket{le="+Inf",route="/a"} 1.0',
        'loom_seconds_count{route="/a"} 1.0',
        'loom_seconds_sum{route="/a"} 0.2',
    ]
    assert text_of(Metric("counter", "loom_total", "Things", ("a", "b")), {("1", "2"): 3})[1:] == [
        "# TYPE loom_total counter",
        'loom_total{a="1",b="2"} 3.0',
    ]
    assert text_of(Metric("untyped", "te_loom", "Foreign"), 4)[1:] == ["# TYPE te_loom untyped", "te_loom 4.0"]


def test_openmetrics_is_served_if_the_accept_header_asks() -> None:
    metrics = Metrics(lambda: [Metric("counter", "loom_total", "Things").of(1)])
    body, content_type = metrics.expose("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize("metric", list_metrics().values(), ids=lambda metric: metric.name)
def test_names_say_service_noun_and_unit(metric: Metric) -> None:
    if metric.name.startswith("te_"):
        return
    assert re.fullmatch(r"heddle_(gateway|tokenizer|engine|rpc|process|build)_[a-z_]+", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert metric.kind != "histogram" or metric.name.endswith(("_seconds", "_ratio", "_tokens", "_sequences", "_bytes"))
    assert metric.meaning[0].isupper() or metric.meaning[0].isdigit()
