"""How a pod's address is written: `host:port`, `unix:/path`, or `dns:///name:port` for all addresses behind a name.

Settings and `Pool` refuse anything else at once. What `resolver` makes of a name begins with gRPC's `ipv4:` or `ipv6:`.
"""

from heddle.rpc.listening import PORT_MAX

DNS_PREFIX = "dns:///"


def path_of(target: str) -> str | None:
    """Of a unix socket; None for a host."""
    return target.removeprefix("unix:").removeprefix("//") if target.startswith("unix:") else None


def host_and_port(target: str) -> tuple[str, int]:
    """Raises ValueError."""
    bare = target.removeprefix(DNS_PREFIX).removeprefix("ipv4:").removeprefix("ipv6:")
    host, _, port = bare.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if (
        not host
        or (":" in host and not is_bracketed)
        or not (port.isascii() and port.isdigit() and int(port) <= PORT_MAX)
    ):
        raise ValueError(f"{target!r} is neither host:port nor unix:/path nor dns:///name:port")
    return host.strip("[]"), int(port)


def check_targets(*targets: str) -> None:
    """Raises ValueError."""
    for target in targets:
        if path_of(target) is None:
            host_and_port(target)
