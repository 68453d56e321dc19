"""Checks that a server can listen on an address, before gRPC tries: gRPC would print several raw lines to stderr, and
would take a unix socket away from the server that uses it.

Called by `lifecycle`, `heddle serve` and the gateway. `bind_port` and `inherited_socket` make the gateway's own socket.
"""

import contextlib
import errno
import socket
from collections.abc import Sequence
from pathlib import Path

from heddle.rpc.settings import ConfigurationError
from heddle.rpc.waiting import poll_until

PORT_MAX = 65_535

# Seconds after which the kernel asks whether the peer of an idle connection is still there, and after which it closes a
# connection whose peer takes nothing of what was sent.
KEEPALIVE_S = 60

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
    usable_port(host.strip("[]"), int(port))


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


async def wait_for_sockets(addresses: Sequence[str]) -> None:
    """Returns when the sockets at these addresses, unix:/path, exist. Raises ConfigurationError for any other address,
    because its file would never appear."""
    if others := [address for address in addresses if not address.startswith("unix:/")]:
        raise ConfigurationError(f"listen_after must be unix:/path, not {others[0]}")
    await poll_until(lambda: all(map(socket_exists, addresses)))


def socket_exists(address: str) -> bool:
    return Path(address.removeprefix("unix:")).exists()


def usable_port(host: str, port: int) -> int:
    """Returns the port, or for 0 a free one. It is free on each address of the host. Raises ConfigurationError."""
    if port > PORT_MAX:  # getaddrinfo would take the remainder
        raise ConfigurationError(f"cannot listen on {authority(host, port)}: there is no such port")
    bound, missing = 0, None
    try:
        with contextlib.ExitStack() as probes:
            for family, ip in resolve_host(host, port):
                is_dual = ip == "::" and socket.has_dualstack_ipv6()
                try:
                    probe = socket.create_server((ip, bound or port), family=family, dualstack_ipv6=is_dual)
                except OSError as error:
                    if error.errno not in NOT_OF_THIS_MACHINE:
                        raise
                    missing = error
                else:
                    bound = int(probes.enter_context(probe).getsockname()[1])
        if missing and not bound:
            raise missing
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # create_server appends the address
        raise ConfigurationError(f"cannot listen on {authority(host, port)}: {reason}") from error
    return bound


def bind_port(host: str, port: int) -> socket.socket:
    """Returns a socket with that port, or for 0 a free one, of the first usable address of the host. It does not listen
    yet, so connections are refused. Raises ConfigurationError."""
    port = usable_port(host, port)
    for family, ip in resolve_host(host, port):
        bound = socket.socket(family, socket.SOCK_STREAM)
        set_for_connections(bound)
        if family == socket.AF_INET6:
            is_dual = ip == "::" and socket.has_dualstack_ipv6()
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_dual)
        try:
            bound.bind((ip, port))
        except OSError as error:
            bound.close()
            if error.errno not in NOT_OF_THIS_MACHINE:
                raise ConfigurationError(f"cannot listen on {authority(host, port)}: {error.strerror}") from error
        else:
            return bound
    raise ConfigurationError(f"cannot listen on {authority(host, port)}: it is no address of this machine")


def set_for_connections(bound: socket.socket) -> None:
    """Accepted connections inherit these: short answers leave at once, and peers that have vanished or do not read are
    noticed."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S // 4)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * KEEPALIVE_S)


def inherited_socket(number: int) -> socket.socket:
    """Returns the socket that whoever started this process has bound. Raises ConfigurationError."""
    try:
        inherited = socket.socket(fileno=number)
    except OSError as error:
        raise ConfigurationError(f"listen_fd: file {number} is no socket: {error.strerror}") from error
    if inherited.family not in (socket.AF_INET, socket.AF_INET6) or inherited.type != socket.SOCK_STREAM:
        inherited.close()
        raise ConfigurationError(f"listen_fd: file {number} is no TCP socket")
    set_for_connections(inherited)
    return inherited


def resolve_host(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def authority(host: str, port: int) -> str:
    """`host:port` as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
