"""The collector of traces comes from a setting, or from OpenTelemetry's variables."""

import pytest

from heddle.rpc.settings import ConfigurationError
from heddle.telemetry.trace_settings import ENDPOINTS, check_ratio, find_collector, use_collector
from http_gateway.settings import GatewaySettings

GENERAL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://general:4317"}
OF_TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:4317"}


@pytest.mark.parametrize(
    ("stated", "environ", "collector"),
    [
        ("", {}, ""),
        ("http://own:4317", GENERAL, "http://own:4317"),
        ("", GENERAL, "http://general:4317"),
        ("", GENERAL | OF_TRACES, "http://traces:4317"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "general:4317"}, "general:4317"),
        ("", GENERAL | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://general:4317"),
        ("", GENERAL | {"OTEL_SDK_DISABLED": "True"}, ""),
        ("http://own:4317", {"OTEL_SDK_DISABLED": "true"}, ""),
        ("", GENERAL | {"OTEL_TRACES_EXPORTER": "none"}, ""),
        ("", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ""),
        ("https://own:4317", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "https://own:4317"),
    ],
)
def test_the_collector_is_the_setting_else_the_variable(stated: str, environ: dict[str, str], collector: str) -> None:
    assert find_collector(stated, environ) == collector
    assert use_collector(GatewaySettings(trace_collector=stated), environ) == GatewaySettings(trace_collector=collector)


def test_a_collector_without_a_scheme_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"trace_collector must be http://host:port or .*, not 'a:1'"):
        find_collector("a:1", {})


@pytest.mark.parametrize("address", ["http://u:secret@own:4317", "secret@own:4317", "https://own:4317?key=secret"])
@pytest.mark.parametrize("variable", ["", *ENDPOINTS])
def test_a_collector_with_a_secret_is_refused_without_repeating_it(address: str, variable: str) -> None:
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_HEADERS") as refused:
        find_collector("" if variable else address, {variable: address} if variable else {})
    assert str(refused.value).startswith(variable or "trace_collector")
    assert "secret" not in str(refused.value)


def test_an_unsupported_protocol_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf is not supported"):
        find_collector("", GENERAL | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})


@pytest.mark.parametrize("ratio", [-0.1, 1.01])
def test_a_ratio_is_from_0_to_1(ratio: float) -> None:
    with pytest.raises(ValueError, match="trace_ratio must be at"):
        check_ratio(ratio)
