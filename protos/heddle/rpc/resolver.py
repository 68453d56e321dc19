"""From the targets that an operator wrote to the addresses of pods. Used by `Pool`.

`dns:///name:port` stands for every address behind the name and is looked up again all the time, so that pods that come
and go (a headless Kubernetes service) are followed. Anything else is one pod, as it is written.
"""

import asyncio
import logging
import socket

from heddle.rpc.target import DNS_PREFIX, host_and_port

DNS_INTERVAL_S = 5.0

log = logging.getLogger(__name__)


async def resolve(targets: tuple[str, ...]) -> dict[str, str] | None:
    """Addresses of all targets, each with the name that its certificate is for ("": the address itself); None when a
    name cannot be looked up just now, so that nothing is torn down for it."""
    addresses: dict[str, str] = {}
    for target in targets:
        if not target.startswith(DNS_PREFIX):
            addresses[target] = ""
            continue
        host, port = host_and_port(target)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            log.warning("cannot look up %s: %s", target, error)
            return None
        addresses.update((address_of(info[4][0], port), host) for info in found)
    return addresses


def address_of(ip: str | int, port: int) -> str:
    return f"ipv6:[{ip}]:{port}" if ":" in str(ip) else f"ipv4:{ip}:{port}"


def needs_refresh(targets: tuple[str, ...]) -> bool:
    return any(target.startswith(DNS_PREFIX) for target in targets)
