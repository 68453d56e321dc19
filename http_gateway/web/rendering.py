"""An answer's value as bytes, in the format and compression that the caller's headers ask for. Called by the app."""

from functools import lru_cache

from http_gateway.web.compression import compression_for
from http_gateway.web.message import Answer, Headers, Hold, Response, bytes_of, uncounted
from http_gateway.web.negotiation import qualities
from http_gateway.web.writing import JSON, MESSAGE_PACK, Format, written

MESSAGE_PACK_TYPES = frozenset(
    {"application/msgpack", "application/x-msgpack", "application/vnd.msgpack", "application/messagepack"}
)

VARY = ("vary", "accept, accept-encoding")


async def rendered(answer: Answer, headers: Headers, *, compressed_bytes_min: int, hold: Hold = uncounted) -> Response:
    """`headers` are the request's. Bodies of fewer bytes are sent as they are. `hold` is told of what a long answer
    has grown by, as it grows."""
    chosen = format_for(headers.get("accept"))
    body = await written(answer.value, chosen, hold)
    extra = (*answer.headers, VARY)
    if bytes_of(body) >= compressed_bytes_min and (compression := compression_for(headers.get("accept-encoding"))):
        body = await compression.compressed(body)
        extra = (*extra, ("content-encoding", compression.name))
    return Response(body, content_type=chosen.content_type, headers=extra)


@lru_cache(maxsize=1024)
def format_for(accept: str | None) -> Format:
    """MessagePack where the caller names it and likes JSON no more: it is the cheaper one for both sides."""
    wanted = qualities(accept)
    message_pack = max((wanted.get(name, 0.0) for name in MESSAGE_PACK_TYPES), default=0.0)
    # Of the ranges that JSON falls into, the most specific one counts (RFC 9110, 12.5.1).
    json = next((wanted[name] for name in ("application/json", "application/*", "*/*") if name in wanted), 0.0)
    return MESSAGE_PACK if message_pack > 0 and message_pack >= json else JSON
