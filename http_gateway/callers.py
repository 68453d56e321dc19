"""Identifies who sends a request: checks the API key and sets the fair-share flow and the priority.

A flow is a path; its parts are nested (see ItemContext.flow in heddle/v1/item.proto):

    key:HASH/USER/REQUEST    with an API key: keys take turns, then the users of a key, then the requests of a user
    user:USER/REQUEST        without a key, if the request names a user
    peer:ADDRESS/REQUEST     otherwise

The user comes inside the key and does not replace it: a caller must not get more turns by inventing users. The user is
the value of the header x-heddle-flow, else of llm-d's fairness id header, else of OpenAI's field `user`. It may be an
email address, so only its hash is passed on.

The priority is the value of x-heddle-priority, else the priority of llm-d's objective. It is never better than the key
allows.
"""

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import PRIORITY_MAX, is_priority
from heddle.rpc.keys import ApiKey, ApiKeys
from http_gateway.errors import Failure
from http_gateway.web.message import Headers, Request

# The second and third are llm-d's: the present name, and the former one.
FLOW_HEADERS = ("x-heddle-flow", "x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
OBJECTIVE_HEADERS = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
PRIORITY_HEADER = "x-heddle-priority"
FORWARDED_HEADER = "x-forwarded-for"


@dataclass(frozen=True, slots=True)
class Callers:
    keys: ApiKeys
    best_priority: int  # for requests whose key has none of its own
    proxies: int  # number of trusted proxies in front of the gateway; see GatewaySettings.trusted_proxies
    objectives: Mapping[str, int] = field(default_factory=dict)  # priority by name; see GatewaySettings.objectives

    def identify(self, request: Request) -> None:
        """Sets the flow's parts and the priority. Raises UNAUTHENTICATED, INVALID_INPUT for a priority that is not a
        number, and a 403 for one that the key does not allow."""
        key = self.keys.find(read_authorization(request.headers))
        request.priority = self._priority(request, key)
        request.user = find_header(request.headers, FLOW_HEADERS)
        if key:
            request.caller, request.key_name = f"key:{key.flow}", key.name
        else:
            request.peer = self.find_address(request)

    def _priority(self, request: Request, key: ApiKey | None) -> int:
        own = key.best_priority if key else None
        best = self.best_priority if own is None else own
        asked = request.headers.get(PRIORITY_HEADER)
        if asked is None and not self.objectives:
            return best
        if asked is None:
            return max(best, self.objectives.get(find_header(request.headers, OBJECTIVE_HEADERS), best))
        if not is_priority(asked.strip()):
            message = f"{PRIORITY_HEADER} must be a whole number from 0 to {PRIORITY_MAX}; smaller is served first"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field=PRIORITY_HEADER)
        if int(asked) < best:
            allowed_by = "the key" if key else "this server"
            message = f"{PRIORITY_HEADER}: {allowed_by} allows {best} and larger numbers, not {int(asked)}"
            raise Failure(403, "priority_not_allowed", message, param=PRIORITY_HEADER)
        return int(asked)

    def find_address(self, request: Request) -> str:
        """The caller's address, as the outermost trusted proxy saw it; without proxies, the connection's peer."""
        if self.proxies:
            values = header_values(request.headers, FORWARDED_HEADER)
            entries = [entry for value in values for entry in value.split(",")]
            if len(entries) >= self.proxies and (address := parse_address(entries[-self.proxies])):
                return address
        return parse_peer(request.peer)


def read_authorization(headers: Headers) -> str | None:
    """The value of `authorization`: `Bearer KEY` from OpenAI's clients, `Api-Key KEY` from Baseten's. Azure's clients
    send the key in the header api-key."""
    authorization = headers.get("authorization")
    if not authorization and (azure_key := headers.get("api-key")):
        return f"Api-Key {azure_key}"
    return authorization


def find_header(headers: Headers, names: Iterable[str]) -> str:
    """Returns the first value that is not empty, or ""."""
    for name in names:
        if value := headers.get(name):
            return value
    return ""


def header_values(headers: Headers, name: str) -> Iterable[str]:
    """All values of a header that may occur several times: a proxy may add its own after the caller's."""
    return (value for key, value in headers.items() if key == name)


def parse_address(entry: str) -> str:
    """The IP address of `address`, `address:port` or `[address]:port`; "" for anything else."""
    entry = entry.strip()
    host = entry.partition("]")[0].strip("[") if entry.startswith("[") else entry
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


# Cached, because a connection carries many requests.
parse_peer = functools.lru_cache(maxsize=4096)(parse_address)
