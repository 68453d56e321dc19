"""Whose turn a request takes at the engines, and how urgent it is. The app asks before it handles a request.

A flow is a path, whose parts take turns one inside the other (see heddle/v1/item.proto):

    key:HASH/USER/REQUEST    with an API key: keys take turns, then the users of one key, then the requests of each
    user:USER/REQUEST        without keys, where the request names a user
    peer:ADDRESS/REQUEST     otherwise

The user stands inside the key, not in its place: a caller must not get more turns by inventing users. A user is what
the header x-heddle-flow says, or else OpenAI's field `user`; it may be a mail address, so only a hash of it goes on.
"""

import functools
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.priorities import is_priority
from http_gateway.api_keys import ApiKey
from http_gateway.errors import Failure
from http_gateway.message import Request

FLOW_HEADER = "x-heddle-flow"
PRIORITY_HEADER = "x-heddle-priority"
FORWARDED_HEADER = "x-forwarded-for"


@dataclass(frozen=True, slots=True)
class FairShare:
    best_priority: int  # of requests whose key does not state its own
    proxies: int  # in front of the gateway, whose word on the caller's address is taken

    def place(self, request: Request, key: ApiKey | None) -> None:
        """Raises INVALID_INPUT for a priority that is no number, and a 403 for one that the key does not allow."""
        request.priority = self._priority(request, key)
        request.user = request.headers.get(FLOW_HEADER) or ""
        if key:
            request.caller, request.key_name = f"key:{key.flow}", key.name
        else:
            request.peer = self._address(request)

    def _priority(self, request: Request, key: ApiKey | None) -> int:
        own = key.best_priority if key else None
        best = self.best_priority if own is None else own
        asked = request.headers.get(PRIORITY_HEADER)
        if asked is None:
            return best
        if not is_priority(asked.strip()):
            message = f"{PRIORITY_HEADER} must be a whole number from 0 on; smaller is served first"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field=PRIORITY_HEADER)
        if int(asked) < best:
            whose = "the key allows" if key else "requests here may have"
            message = f"{PRIORITY_HEADER}: {int(asked)} is more urgent than {whose}, which is {best} and more"
            raise Failure(403, "priority_not_allowed", message, param=PRIORITY_HEADER)
        return int(asked)

    def _address(self, request: Request) -> str:
        """Of the caller: what the outermost of our own proxies saw, or the other end of the connection."""
        if self.proxies:
            entries = [entry for value in values_of(request, FORWARDED_HEADER) for entry in value.split(",")]
            if len(entries) >= self.proxies and (address := host_of(entries[-self.proxies])):
                return address
        return host_of_peer(request.peer)


def values_of(request: Request, name: str) -> Iterable[str]:
    """Of a header that may be there several times: a proxy may add one of its own below the caller's."""
    return (value for key, value in request.headers.items() if key == name)


def host_of(entry: str) -> str:
    """The IP address of `address`, `address:port` or `[address]:port`; "" for anything else."""
    entry = entry.strip()
    host = entry.partition("]")[0].strip("[") if entry.startswith("[") else entry
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


# A connection has many requests.
host_of_peer = functools.lru_cache(maxsize=4096)(host_of)
