"""Whether an address can be listened on, found out before gRPC tries: it would say so in several lines of its own log,
and take a unix socket away from a server that is using it. Called by heddle.rpc.lifecycle and heddle.serve.
"""

import socket
from pathlib import Path

from heddle.rpc.settings import ConfigurationError

PORT_MAX = 65_535


def check_address(address: str) -> None:
    """Raises ConfigurationError unless a server can listen on `host:port` or `unix:/path`."""
    if address.startswith("unix:"):
        check_socket(address.removeprefix("unix:"))
        return
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit()):
        raise ConfigurationError(f"cannot listen on {address}: neither host:port nor unix:/path")
    usable_port(host.strip("[]"), int(port))


def check_socket(path: str) -> None:
    """A socket that nobody answers on is left over and may be replaced."""
    if not Path(path).parent.is_dir():
        raise ConfigurationError(f"cannot listen on unix:{path}: there is no folder {Path(path).parent}")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except OSError as error:
            raise ConfigurationError(f"cannot listen on unix:{path}: {error}") from error
    raise ConfigurationError(f"cannot listen on unix:{path}: another process does")


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
