"""Chooses the ports where the pods of `heddle serve` serve their metrics, so that it can print them. Called by `serve`.

A pod takes the next free port where its own is in use, but only its log would say so.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass

from heddle.rpc.listening import PORT_MAX, authority, usable_port
from heddle.rpc.settings import ConfigurationError

TOKENIZER_METRICS_PORT = 9151
# The engines have the ports from this one on.
ENGINE_METRICS_PORT = 9152

PORTS_TRIED = 100

# A client cannot connect to a wildcard address.
CONNECT_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class MetricsAddress:
    """Where a pod serves its metrics. `port` is the text of its setting: none for no metrics."""

    host: str
    port: str

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--metrics-host", self.host, "--metrics-port", self.port)

    @property
    def shown(self) -> str:
        """host:port for a client on this machine; empty without metrics."""
        host = self.host.strip("[]")
        return authority(CONNECT_ADDRESSES.get(host, host), int(self.port)) if self.port.isdecimal() else ""


def choose_addresses(environ: Mapping[str, str], host: str, engines: int) -> list[MetricsAddress]:
    """Those of the tokenizer and of so many engines. The variables of a service come before `host` and the ports
    here."""
    addresses: list[MetricsAddress] = []
    for prefix, default, count in (
        ("HEDDLE_TOKENIZER_", TOKENIZER_METRICS_PORT, 1),
        ("HEDDLE_ENGINE_", ENGINE_METRICS_PORT, engines),
    ):
        own_host = environ.get(f"{prefix}METRICS_HOST") or host
        first = environ.get(f"{prefix}METRICS_PORT") or str(default)
        for _ in range(count):
            taken = {address.port for address in addresses}
            addresses.append(MetricsAddress(own_host, find_free(own_host, first, taken)))
    return addresses


def find_free(host: str, first: str, taken: set[str]) -> str:
    """The first free port from `first` on, or any free one for 0. `first` itself if it is no port, or if none is free:
    the service then says why."""
    if not first.isdecimal() or int(first) > PORT_MAX:
        return first
    for port in range(int(first), min(int(first) + PORTS_TRIED, PORT_MAX + 1)) if int(first) else (0,):
        if str(port) in taken:
            continue
        try:
            return str(usable_port(host.strip("[]"), port))
        except ConfigurationError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
                break
    return first
