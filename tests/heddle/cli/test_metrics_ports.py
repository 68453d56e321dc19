"""The ports of metrics are free and distinct, and the operator's variables come first."""

import socket

import pytest

from heddle.cli.metrics_ports import MetricsAddress, choose_addresses
from tests.metrics import free_port


def test_a_port_that_is_in_use_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        taken = used.getsockname()[1]
        environ = {"HEDDLE_TOKENIZER_METRICS_PORT": str(taken), "HEDDLE_ENGINE_METRICS_PORT": str(taken)}
        addresses = choose_addresses(environ, "127.0.0.1", 2)
    ports = [int(address.port) for address in addresses]
    assert len({taken, *ports}) == 4
    assert all(taken < port < taken + 100 for port in ports)


@pytest.mark.parametrize(
    ("host", "port", "shown"),
    [
        ("0.0.0.0", "9151", "127.0.0.1:9151"),
        ("::", "9151", "[::1]:9151"),
        ("[::1]", "9151", "[::1]:9151"),
        ("10.0.0.1", "9151", "10.0.0.1:9151"),
        ("10.0.0.1", "none", ""),
    ],
)
def test_an_address_is_shown_as_a_client_on_this_machine_names_it(host: str, port: str, shown: str) -> None:
    assert MetricsAddress(host, port).shown == shown


@pytest.mark.parametrize("stated", ["none", "x", "70000"])
def test_what_is_no_port_is_left_to_the_service(stated: str) -> None:
    port = free_port()
    environ = {"HEDDLE_ENGINE_METRICS_PORT": stated, "HEDDLE_ENGINE_METRICS_HOST": "::1"}
    environ["HEDDLE_TOKENIZER_METRICS_PORT"] = str(port)
    assert choose_addresses(environ, "127.0.0.1", 1) == [
        MetricsAddress("127.0.0.1", str(port)),
        MetricsAddress("::1", stated),
    ]
