"""The addresses that a server listens on, or why it cannot. `heddle.rpc.http2.doorway` takes sockets; heddle.serve and
the gateway ask for a port alone.
"""

import errno
import socket
from pathlib import Path

from heddle.rpc.settings import ConfigurationError

PORT_MAX = 65_535

# Of a name's addresses: localhost is ::1 too where the machine has no IPv6.
NOT_OF_THIS_MACHINE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def listening_sockets(address: str) -> list[socket.socket]:
    """Bound to `unix:/path`, or to `host:port` on all that the host stands for; port 0 is any free one. Raises
    ConfigurationError where that cannot be."""
    if address.startswith("unix:"):
        return [unix_socket(address.removeprefix("unix:"))]
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit()):
        raise ConfigurationError(f"cannot listen on {address}: neither host:port nor unix:/path")
    return tcp_sockets(host.strip("[]"), int(port))


def unix_socket(path: str) -> socket.socket:
    """One that nobody answers on is left over, and is replaced."""
    if not Path(path).parent.is_dir():
        raise ConfigurationError(f"cannot listen on unix:{path}: there is no folder {Path(path).parent}")
    try:
        if is_left_over(path):
            Path(path).unlink()
        return bound_to(path)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on unix:{path}: {error.strerror or error}") from error


def bound_to(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(path)
        listening.listen()  # at once: who finds that nobody does takes it for left over
    except OSError:
        listening.close()
        raise
    return listening


def is_left_over(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return False
        except ConnectionRefusedError:
            return Path(path).is_socket()
    raise ConfigurationError(f"cannot listen on unix:{path}: another process does")


def tcp_sockets(host: str, port: int) -> list[socket.socket]:
    if port > PORT_MAX:  # getaddrinfo would take the remainder
        raise ConfigurationError(f"cannot listen on {authority(host, port)}: there is no such port")
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, place in places(host, port):
            try:
                sockets.append(tcp_socket(family, place, port))
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


def places(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(place[0])) for family, _, _, _, place in found))


def usable_port(host: str, port: int) -> int:
    """The port itself, or a free one for 0. Raises ConfigurationError unless a server can listen there."""
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
    """As in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
