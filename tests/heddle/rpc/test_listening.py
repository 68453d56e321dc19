"""An address that cannot be listened on is refused with its reason before anything is opened."""

import socket
from pathlib import Path

import pytest

from heddle.rpc.listening import check_address, usable_port
from heddle.rpc.settings import ConfigurationError


def test_a_free_port_is_usable_and_0_finds_one() -> None:
    port = usable_port("127.0.0.1", 0)
    assert port > 0
    assert usable_port("127.0.0.1", port) == port
    check_address(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("8080", "neither host:port nor unix:/path"),
        ("localhost", "neither host:port nor unix:/path"),
        (":8080", "neither host:port nor unix:/path"),
        ("localhost:http", "neither host:port nor unix:/path"),
        ("127.0.0.1:99999", "there is no such port"),
        ("192.0.2.1:8080", "Cannot assign requested address"),
        ("unix:/no/such/folder/socket", "there is no folder /no/such/folder"),
        (f"unix:/tmp/{'x' * 200}", "path too long"),
    ],
)
def test_an_impossible_address_is_refused_with_its_reason(address: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot listen on {address}: .*{reason}"):
        check_address(address)


def test_a_taken_port_is_refused_on_every_address_it_covers() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for host in ("127.0.0.1", "0.0.0.0", "localhost"):
            with pytest.raises(ConfigurationError, match="Address already in use"):
                check_address(f"{host}:{port}")


def test_a_left_over_socket_may_be_replaced_and_a_living_one_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    check_address(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(ConfigurationError, match="another process does"):
            check_address(f"unix:{path}")
    assert path.exists()
    check_address(f"unix:{path}")
