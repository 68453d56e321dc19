"""The fair-share flow and the priority of a call. See ItemContext in item.proto.

`unary` and `stream_session` set the flow of calls that name none to the address of the peer; the servicers append an id
for each request. Priorities are text in the metadata of a unary call, in an HTTP header and in a file of keys.
"""

import itertools
import secrets
import urllib.parse

PRIORITY_MAX = 2**32 - 1
DIGITS_MAX = len(str(PRIORITY_MAX))

_numbers = itertools.count()


def is_priority(text: str) -> bool:
    """Whether the text is a whole number from 0 to PRIORITY_MAX. The length is checked first, because int() refuses
    thousands of digits."""
    return text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX and int(text) <= PRIORITY_MAX


def peer_flow(peer: str) -> str:
    """`peer` is gRPC's: ipv4:1.2.3.4:5, ipv6:[::1]:5 or unix:. Returns "" for a unix socket, which has no address: each
    call then counts as its own caller."""
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    if kind in ("ipv4", "ipv6"):
        return f"peer:{rest.rpartition(':')[0].strip('[]')}"
    return ""


class FlowNames:
    """Completes flows with request ids. Each servicer has one."""

    def __init__(self) -> None:
        self._id = secrets.token_hex(4)  # distinguishes the tokenizer pods of one engine

    def complete(self, flow: str) -> str:
        """Appends an id for the request, unless the flow is a path already."""
        if "/" in flow:
            return flow
        request = f"{self._id}.{next(_numbers)}"
        return f"{flow}/{request}" if flow else f"{request}/"
