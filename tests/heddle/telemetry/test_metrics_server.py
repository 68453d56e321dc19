"""The port on which a pod serves its metrics."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import httpx
import pytest

from heddle.rpc.settings import ConfigurationError
from heddle.telemetry.metrics import Metric, Metrics
from heddle.telemetry.metrics_server import CONNECTIONS_MAX, serve_metrics

METRICS = Metrics(lambda: [Metric("gauge", "x_items", "Things").of(7)])


@contextlib.contextmanager
def serving(port: int | None = 0, host: str = "", listen: tuple[str, ...] = ()) -> Iterator[str]:
    with serve_metrics(METRICS, host, port, listen) as address:
        yield address


def test_only_metrics_are_served() -> None:
    with serving() as address, httpx.Client(base_url=f"http://{address}") as http:
        answer = http.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "\nx_items 7.0\n" in answer.text
        assert "process_resident_memory_bytes" in answer.text
        assert http.get("/metrics?name=x").status_code == 200
        assert http.get("/other").status_code == 404
        assert http.post("/metrics").status_code == 501


def test_two_pods_on_one_machine_get_adjacent_ports(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as first:
        port = int(first.rpartition(":")[2])
        with serving(port) as second:
            assert second != first
            assert httpx.get(f"http://{second}/metrics").status_code == 200
    assert f"port {port} is in use: metrics are on port {second.rpartition(':')[2]}" in caplog.text
    with serving(port) as third:  # the port is free again
        assert third == first


def test_metrics_are_served_where_the_pod_listens() -> None:
    with serving(None) as address:
        assert address == ""
    for host, listen, expected in (
        ("", ("unix:/x",), "127.0.0.1"),
        ("", ("unix:/x", "0.0.0.0:50052"), "0.0.0.0"),
        ("127.0.0.1", ("0.0.0.0:50052",), "127.0.0.1"),
    ):
        with serving(0, host, listen) as address:
            assert address.rpartition(":")[0] == expected


def test_an_unusable_address_is_a_configuration_error() -> None:
    for host, port in (("192.0.2.1", 0), ("127.0.0.1", 70_000)):
        with pytest.raises(ConfigurationError, match="cannot serve metrics on"), serving(port, host):
            raise AssertionError


async def test_idle_connections_are_bounded_and_do_not_stop_readers_for_good() -> None:
    with serving() as address:
        host, port = address.split(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(CONNECTIONS_MAX)]
        further = socket.create_connection((host, int(port)), timeout=5)
        with further:
            assert await asyncio.to_thread(further.recv, 1) == b""  # closed
        for _, writer in idle:
            writer.close()
        async with asyncio.timeout(5), httpx.AsyncClient() as http:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get(f"http://{address}/metrics")).status_code == 200:
                        break
                await asyncio.sleep(0.01)
