"""Addresses of pods: `host:port`, `unix:/path`, or `dns:///name:port` for all addresses behind a name.

Settings and `Pool` check them; `Pool` resolves them again and again, so that it follows pods that come and go behind a
name, such as those of a headless Kubernetes service. Resolved names begin with gRPC's `ipv4:` or `ipv6:`.
"""

import asyncio
import logging
import socket

from heddle.rpc.listening import PORT_MAX

DNS_PREFIX = "dns:///"
DNS_INTERVAL_S = 5.0

log = logging.getLogger(__name__)


def socket_path(target: str) -> str | None:
    """Returns the path of a unix socket, or None for a host."""
    return target.removeprefix("unix:").removeprefix("//") if target.startswith("unix:") else None


def parse_host_port(target: str) -> tuple[str, int]:
    """Raises ValueError."""
    bare = target.removeprefix(DNS_PREFIX).removeprefix("ipv4:").removeprefix("ipv6:")
    host, _, port = bare.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if (
        not host
        or (":" in host and not is_bracketed)
        or not (port.isascii() and port.isdigit() and int(port) <= PORT_MAX)
    ):
        shown = target.rpartition("@")[2]  # before it might be a password
        raise ValueError(f"{shown!r} is neither host:port nor unix:/path nor dns:///name:port")
    return host.strip("[]"), int(port)


def check_targets(*targets: str) -> None:
    """Raises ValueError."""
    for target in targets:
        if socket_path(target) is None:
            parse_host_port(target)


async def resolve(targets: tuple[str, ...]) -> dict[str, str] | None:
    """Returns the addresses of all targets, each with the name that its certificate is for ("" = the address itself).
    None if a name cannot be looked up, so that the pool keeps its pods."""
    addresses: dict[str, str] = {}
    for target in targets:
        if not target.startswith(DNS_PREFIX):
            addresses[target] = ""
            continue
        host, port = parse_host_port(target)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            log.warning("cannot look up %s: %s", target, error)
            return None
        addresses.update((format_address(info[4][0], port), host) for info in found)
    return addresses


def format_address(ip: str | int, port: int) -> str:
    return f"ipv6:[{ip}]:{port}" if ":" in str(ip) else f"ipv4:{ip}:{port}"


def has_names(targets: tuple[str, ...]) -> bool:
    return any(target.startswith(DNS_PREFIX) for target in targets)
