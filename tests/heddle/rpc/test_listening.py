"""An address that a server cannot listen on is refused with the reason, before any is opened."""

import os
import socket
import sys
from pathlib import Path

import pytest

from heddle.rpc import listening
from heddle.rpc.listening import bind_port, check_address, inherited_socket, usable_port, wait_for_sockets
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


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    check_address(f"unix:{path}")
    assert not path.exists()
    port = usable_port("127.0.0.1", 0)
    for _ in range(2):
        check_address(f"localhost:{port}")


def test_only_an_unused_socket_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(ConfigurationError, match="another process uses it"):
            check_address(f"unix:{path}")
    assert path.exists()
    check_address(f"unix:{path}")


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"cannot listen on .*: the file is not a socket"):
        check_address(f"unix:{path}")
    assert path.read_text() == "mine"


def test_addresses_that_this_machine_lacks_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET, "127.0.0.1")]
    monkeypatch.setattr(listening, "resolve_host", lambda host, port: found)
    check_address("name:0")
    found.pop()
    with pytest.raises(ConfigurationError, match="cannot listen on name:0: Cannot assign requested address"):
        check_address("name:0")


async def test_only_sockets_are_waited_for(tmp_path: Path) -> None:
    (tmp_path / "engine").touch()
    await wait_for_sockets([f"unix:{tmp_path}/engine"])
    with pytest.raises(ConfigurationError, match="listen_after must be unix:/path, not localhost:80"):
        await wait_for_sockets([f"unix:{tmp_path}/engine", "localhost:80"])


def test_a_bound_port_refuses_connections_until_somebody_listens() -> None:
    with bind_port("localhost", 0) as bound:
        address = bound.getsockname()[:2]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        bound.listen()
        with socket.create_connection(address), bound.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if sys.platform == "linux":
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


def test_only_a_tcp_socket_can_be_inherited(tmp_path: Path) -> None:
    with bind_port("127.0.0.1", 0) as bound, inherited_socket(os.dup(bound.fileno())) as inherited:
        assert inherited.getsockname() == bound.getsockname()
    with (tmp_path / "file").open("w") as file, pytest.raises(ConfigurationError, match="is no socket"):
        inherited_socket(file.fileno())
    with socket.socket(socket.AF_UNIX) as unix, pytest.raises(ConfigurationError, match="is no TCP socket"):
        inherited_socket(unix.detach())
