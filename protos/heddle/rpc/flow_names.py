"""Whose turn a call takes where its caller does not say: that of its peer's address. See ItemContext.flow.

`unary` and `stream_server` name the flow of what comes in, `doorway` lets gRPC see the address of a caller that comes
through a relay, and the servicers tell the requests of one caller apart.
"""

import itertools
import secrets
import urllib.parse

# Of the addresses in the abstract namespace (unix(7)) that relays connect from.
RELAY = "heddle-relay"

_numbers = itertools.count()


def flow_of_peer(peer: str) -> str:
    """`peer` is as gRPC has it: ipv4:1.2.3.4:5, ipv6:[::1]:5, unix:. "" where no address is known, as on a machine's
    own sockets: every call is a caller of its own there."""
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    if kind in ("ipv4", "ipv6"):
        return f"peer:{rest.rpartition(':')[0].strip('[]')}"
    name = rest.split("/")
    return f"peer:{name[1]}" if kind == "unix-abstract" and name[0] == RELAY else ""


def relay_address(host: str) -> str:
    """Where a relay connects from, for `flow_of_peer` to find whom it relays."""
    return f"\0{RELAY}/{host}/{next(_numbers)}-{secrets.token_hex(4)}"


class FlowNames:
    """Made by a servicer."""

    def __init__(self) -> None:
        self._id = secrets.token_hex(4)  # tells the pods of one engine apart

    def complete(self, flow: str) -> str:
        """A path that tells requests apart: one that has parts already is as its caller wants it."""
        return (
            flow if "/" in flow else f"{flow}/{self._id}.{next(_numbers)}" if flow else f"{self._id}.{next(_numbers)}/"
        )
