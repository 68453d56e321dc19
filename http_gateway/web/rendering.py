"""Turns an answer into a response: serialized and compressed as the caller's Accept and Accept-Encoding headers ask.

Called by the app. See RFC 9110, 12.4.2 and 12.5.
"""

from functools import lru_cache

from http_gateway.web.compression import COMPRESSIONS, Compression
from http_gateway.web.message import Answer, Headers, Reserve, Response, body_size, reserve_nothing
from http_gateway.web.serialization import JSON, MESSAGE_PACK, Format, serialize

MESSAGE_PACK_TYPES = frozenset(
    {"application/msgpack", "application/x-msgpack", "application/vnd.msgpack", "application/messagepack"}
)

VARY = ("vary", "accept, accept-encoding")


async def render(
    answer: Answer, headers: Headers, *, compressed_bytes_min: int, reserve: Reserve = reserve_nothing
) -> Response:
    """`headers` are the request's. Smaller bodies are not compressed. `reserve` is called with the bytes that a long
    answer has grown by, as it grows."""
    form = choose_format(headers.get("accept"))
    body = await serialize(answer.value, form, reserve)
    extra = (*answer.headers, VARY)
    if body_size(body) >= compressed_bytes_min:
        compression = choose_compression(headers.get("accept-encoding"))
        if compression:
            body = await compression.compress(body)
            extra = (*extra, ("content-encoding", compression.name))
    return Response(body, content_type=form.content_type, headers=extra)


@lru_cache(maxsize=1024)
def choose_format(accept: str | None) -> Format:
    """MessagePack if the caller names it and does not prefer JSON: it is cheaper for both sides."""
    weights = parse_weights(accept)
    message_pack = max((weights.get(name, 0.0) for name in MESSAGE_PACK_TYPES), default=0.0)
    # The most specific range that includes JSON counts (RFC 9110, 12.5.1).
    json = next((weights[name] for name in ("application/json", "application/*", "*/*") if name in weights), 0.0)
    return MESSAGE_PACK if message_pack > 0 and message_pack >= json else JSON


@lru_cache(maxsize=1024)
def choose_compression(accept_encoding: str | None) -> Compression | None:
    """The one that the caller prefers; zstd if it has no preference."""
    weights = parse_weights(accept_encoding)
    best = max(COMPRESSIONS, key=lambda compression: weights.get(compression.name, 0.0))
    return best if weights.get(best.name, 0.0) > 0 else None


def parse_weights(header: str | None) -> dict[str, float]:
    """The weight of each name, from 0 (not wanted) to 1. Invalid entries are skipped: the header is only advice."""
    weights: dict[str, float] = {}
    for entry in (header or "").split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        if name and is_weight(weight):
            weights[name] = float(weight)
    return weights


def is_weight(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal() and 0 <= float(text) <= 1
