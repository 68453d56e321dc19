"""Reads metrics as Prometheus does, and lists all metrics of the services.

`python -m tests.metrics` prints the table of deploy/metrics.md.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from heddle.rpc.listening import usable_port
from heddle.telemetry.metrics import DECLARED, Metric

# The modules that declare metrics.
MODULES = (
    "heddle.telemetry.process_metrics",
    "heddle.rpc.metrics",
    "http_gateway.metrics",
    "tokenizer_svc.metrics",
    "engine_svc.metrics",
)

# Metrics of prometheus_client that dashboards and alerts use.
OF_PROCESS = (
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
)


@dataclass(frozen=True)
class Scrape:
    """The samples of one reading, by their name and labels."""

    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples whose labels include these."""
        wanted = set(labels.items())
        found = [value for (one, its), value in self.samples.items() if one == name and wanted <= its]
        assert found, f"no {name}{labels or ''}"
        return sum(found)

    def labels_of(self, name: str, label: str) -> set[str]:
        """The values of a label in the samples of this name."""
        return {dict(labels)[label] for one, labels in self.samples if one == name}


async def scrape(url: str) -> Scrape:
    async with httpx.AsyncClient() as http:
        return parse((await http.get(f"{url}/metrics")).raise_for_status().text)


def parse(text: str) -> Scrape:
    families = text_string_to_metric_families(text)
    return Scrape(
        {(sample.name, frozenset(sample.labels.items())): sample.value for one in families for sample in one.samples}
    )


def free_port() -> int:
    return usable_port("127.0.0.1", 0)


def list_metrics() -> dict[str, Metric]:
    """All metrics that the services declare, by name, and in the order of their names."""
    for module in MODULES:
        importlib.import_module(module)
    return dict(sorted(DECLARED.items()))


def list_sample_names() -> set[str]:
    """The names that queries may use, with those of a histogram's parts."""
    names = set(OF_PROCESS)
    for metric in list_metrics().values():
        parts = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        names.update(f"{metric.name}{part}" for part in parts)
    return names


def write_table() -> str:
    lines = ["| Name | Type | Labels | Meaning |", "|---|---|---|---|"]
    for metric in list_metrics().values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(write_table(), end="")
