"""The fair-share flow of calls that name none: the address of the peer. See ItemContext.flow.

`unary` and `stream_server` set the flow of incoming items. The servicers append an id for each request of a caller.
"""

import itertools
import secrets
import urllib.parse

_numbers = itertools.count()


def flow_of_peer(peer: str) -> str:
    """`peer` is a gRPC peer: ipv4:1.2.3.4:5, ipv6:[::1]:5 or unix:. Returns "" for a unix socket, which has no address
    to share by: each call then counts as its own caller."""
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    if kind in ("ipv4", "ipv6"):
        return f"peer:{rest.rpartition(':')[0].strip('[]')}"
    return ""


class FlowNames:
    """Each servicer has one."""

    def __init__(self) -> None:
        self._id = secrets.token_hex(4)  # distinguishes the tokenizer pods of one engine

    def complete(self, flow: str) -> str:
        """The flow with an id for the request. A path that has a slash already is left as it is."""
        if "/" in flow:
            return flow
        request = f"{self._id}.{next(_numbers)}"
        return f"{flow}/{request}" if flow else f"{request}/"
