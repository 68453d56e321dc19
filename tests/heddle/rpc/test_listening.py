"""An address that cannot be listened on is refused with its reason before anything is opened."""

import socket
from pathlib import Path

import pytest

from heddle.rpc import listening
from heddle.rpc.listening import listening_sockets, usable_port
from heddle.rpc.settings import ConfigurationError


def opened(address: str) -> list[tuple[str, int]]:
    """Where the sockets are bound; they are closed again."""
    sockets = listening_sockets(address)
    places = [sock.getsockname()[:2] for sock in sockets]
    for sock in sockets:
        sock.close()
    return places


def test_a_free_port_is_usable_and_0_finds_one() -> None:
    port = usable_port("127.0.0.1", 0)
    assert port > 0
    assert usable_port("127.0.0.1", port) == port
    opened(f"127.0.0.1:{port}")


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
        listening_sockets(address)


def test_a_taken_port_is_refused_on_every_address_it_covers() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for host in ("127.0.0.1", "0.0.0.0", "localhost"):
            with pytest.raises(ConfigurationError, match="Address already in use"):
                listening_sockets(f"{host}:{port}")


def test_a_name_of_two_addresses_listens_on_both_with_one_port() -> None:
    hosts = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    places = opened("localhost:0")
    assert {host for host, _ in places} == hosts
    assert len({port for _, port in places}) == 1


def test_all_of_ipv6_is_all_of_ipv4_too() -> None:
    (server,) = listening_sockets("[::]:0")
    with server, socket.create_connection(("127.0.0.1", server.getsockname()[1]), 5):
        pass


def test_a_left_over_socket_is_replaced_and_a_living_one_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    address = f"unix:{path}"
    with listening_sockets(address)[0] as server:
        server.listen()
        with pytest.raises(ConfigurationError, match="another process does"):
            listening_sockets(address)
    assert path.exists()
    for replacement in listening_sockets(address):
        replacement.close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="cannot listen on"):
        listening_sockets(f"unix:{path}")
    assert path.read_text() == "mine"


def test_of_a_name_the_addresses_that_this_machine_has_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET, "127.0.0.1")]
    monkeypatch.setattr(listening, "places", lambda host, port: found)
    assert [host for host, _ in opened("name:0")] == ["127.0.0.1"]
    found.pop()
    with pytest.raises(ConfigurationError, match="cannot listen on name:0: Cannot assign requested address"):
        listening_sockets("name:0")


def test_a_socket_that_is_bound_is_nobodys_left_over(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/socket"
    with listening_sockets(address)[0], pytest.raises(ConfigurationError, match="another process does"):
        listening_sockets(address)
