"""Checks that a server can listen on an address, before gRPC tries: gRPC would print several raw lines to stderr, and
would take a unix socket away from the server that uses it.

Called by `lifecycle`, `heddle serve` and the gateway.
"""

import contextlib
import errno
import socket
from collections.abc import Sequence
from pathlib import Path

from heddle.rpc.settings import ConfigurationError
from heddle.rpc.waiting import poll_until

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


def resolve_host(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def authority(host: str, port: int) -> str:
    """`host:port` as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
