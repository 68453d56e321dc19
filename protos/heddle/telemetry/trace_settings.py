"""Finds the collector of traces in the settings and in OpenTelemetry's variables. Imports no gRPC, because the settings
of each service import this module."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from heddle.rpc.settings import ConfigurationError, at_least

# The variables that name a collector. The first that is set counts.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class TraceSettings(Protocol):
    """Settings of a service."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def trace_collector(self) -> str: ...


S = TypeVar("S", bound=TraceSettings)


def check_ratio(trace_ratio: float) -> None:
    """Raises ValueError."""
    at_least(0, trace_ratio=trace_ratio)
    if trace_ratio > 1:
        raise ValueError(f"trace_ratio must be at most 1, not {trace_ratio}")


def use_collector(settings: S, environ: Mapping[str, str]) -> S:
    """Returns the settings with the collector that they or the variables name. Raises ConfigurationError."""
    return dataclasses.replace(settings, trace_collector=find_collector(settings.trace_collector, environ))


def find_collector(stated: str, environ: Mapping[str, str]) -> str:
    """Returns the collector of the settings, else of OpenTelemetry's variables. Empty if there is none, or if the
    variables disable the SDK. Raises ConfigurationError."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":  # with this variable the SDK makes no spans
        return ""
    if stated:
        check_no_secret(stated, "trace_collector")
        if not stated.startswith(("http://", "https://")):
            raise ConfigurationError(f"trace_collector must be http://host:port or https://host:port, not {stated!r}")
        return stated
    variable = next((name for name in ENDPOINTS if environ.get(name)), "")
    collector = environ.get(variable, "")
    if not collector or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return ""
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    if protocol != "grpc":
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not supported: set it to grpc (usually on port 4317), or "
            "OTEL_TRACES_EXPORTER=none for no traces"
        )
    check_no_secret(collector, variable)
    return collector


def check_no_secret(collector: str, source: str) -> None:
    """Raises ConfigurationError, which does not repeat the address. gRPC would resolve the user as part of the host,
    and log lines name the address."""
    if "@" in collector or "?" in collector:
        raise ConfigurationError(
            f"{source} must be an address without user, password and query: headers for the collector belong in "
            "OTEL_EXPORTER_OTLP_HEADERS"
        )
