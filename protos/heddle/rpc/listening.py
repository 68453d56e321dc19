"""Checks that a server can listen on an address, before gRPC tries: gRPC would print several raw lines to stderr, and
would take a unix socket away from the server that uses it.

Called by `lifecycle`, `heddle serve` and the gateway.
"""

import errno
import socket
from pathlib import Path

from heddle.rpc.settings import ConfigurationError

PORT_MAX = 65_535

# A name may have addresses that this machine lacks: localhost is ::1 too, even without IPv6.
NOT_OF_THIS_MACHINE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def check_address(address: str) -> None:
    """`address` is `unix:/path` or `host:port`. Raises ConfigurationError."""
    if address.startswith("unix:"):
        check_socket(address.removeprefix("unix:"))
        return
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit()):
        raise ConfigurationError(f"cannot listen on {address}: neither host:port nor unix:/path")
    for probe in tcp_sockets(host.strip("[]"), int(port)):
        probe.close()


def check_socket(path: str) -> None:
    """gRPC replaces an existing socket file, which is right only if nobody listens on it."""
    if not Path(path).parent.is_dir():
        raise ConfigurationError(f"cannot listen on unix:{path}: there is no folder {Path(path).parent}")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if Path(path).is_socket():
                return
            raise ConfigurationError(f"cannot listen on unix:{path}: the file is not a socket") from None
        except OSError as error:
            raise ConfigurationError(f"cannot listen on unix:{path}: {error.strerror or error}") from error
    raise ConfigurationError(f"cannot listen on unix:{path}: another process uses it")


def tcp_sockets(host: str, port: int) -> list[socket.socket]:
    if port > PORT_MAX:  # getaddrinfo would take the remainder
        raise ConfigurationError(f"cannot listen on {authority(host, port)}: there is no such port")
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in addresses_of(host, port):
            try:
                sockets.append(tcp_socket(family, address, port))
            except OSError as error:
                if error.errno not in NOT_OF_THIS_MACHINE:
                    raise
                missing = error
            else:
                port = int(sockets[0].getsockname()[1])
        if missing is not None and not sockets:
            raise missing
    except OSError as error:
        for listening in sockets:
            listening.close()
        raise ConfigurationError(f"cannot listen on {authority(host, port)}: {error.strerror}") from error
    return sockets


def tcp_socket(family: socket.AddressFamily, place: str, port: int) -> socket.socket:
    is_all = place == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((place, port), family=family, dualstack_ipv6=is_all)


def addresses_of(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(place[0])) for family, _, _, _, place in found))


def usable_port(host: str, port: int) -> int:
    """Returns the port, or a free one for 0. Raises ConfigurationError."""
    if port > PORT_MAX:  # getaddrinfo would take the remainder
        raise ConfigurationError(f"cannot listen on {authority(host, port)}: there is no such port")
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {authority(host, port)}: {error.strerror}") from error


def authority(host: str, port: int) -> str:
    """`host:port` as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
