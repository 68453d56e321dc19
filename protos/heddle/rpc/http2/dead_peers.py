"""How a connection to a machine that is gone comes to its end. Used by both ends of streams, and by `doorway`."""

import socket

from heddle.rpc.channels import KEEPALIVE_S, KEEPALIVE_TIMEOUT_S

PROBES = 2


def give_up_the_dead(connection: socket.socket | None) -> None:
    """Within the time that gRPC's channels take. TCP alone would go on for a quarter of an hour with what nobody
    acknowledges, and for ever where nothing is to be acknowledged."""
    if connection is None or connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    values = {
        "TCP_KEEPIDLE": KEEPALIVE_S,
        "TCP_KEEPINTVL": KEEPALIVE_TIMEOUT_S // PROBES,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": 1000 * (KEEPALIVE_S + KEEPALIVE_TIMEOUT_S),
    }
    for name, value in values.items():
        if hasattr(socket, name):  # not all systems have all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
