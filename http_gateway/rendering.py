"""An answer's value as bytes, in the format and compression that the caller's headers ask for.

JSON and MessagePack are written straight from the arrays that the engine sent: orjson writes a float32 in its shortest
form, 4.7 kB and 9 us for 384 of them, where a detour over Python's floats takes 8 kB and 22 us; MessagePack takes
1.9 kB and 1 us. The parts of a long answer are written in turns with other requests.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import orjson
import ormsgpack

from http_gateway.compression import compression_for
from http_gateway.message import Answer, Headers, Response
from http_gateway.negotiation import qualities

# About a millisecond of writing, for which others have to wait.
NUMBERS_PER_TURN = 32_768

M = TypeVar("M")

MESSAGE_PACK_TYPES = frozenset(
    {"application/msgpack", "application/x-msgpack", "application/vnd.msgpack", "application/messagepack"}
)

dump_json = partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)
dump_message_pack = partial(ormsgpack.packb, option=ormsgpack.OPT_SERIALIZE_NUMPY)


class LongList(list[Any]):
    """A list that may be too long to be written in one turn: the answer itself, or a value of its objects."""


async def each(make: Callable[[M], Any], messages: Iterable[M]) -> LongList:
    """What `make` makes of each message, in turns with other requests: for messages that take a while."""
    made = LongList()
    for message in messages:
        if made:
            await asyncio.sleep(0)
        made.append(make(message))
    return made


@dataclass(frozen=True, slots=True)
class Format:
    content_type: str
    dump: Callable[[Any], bytes]
    fragment: Callable[[bytes], Any]  # what is written already, for `dump` to take over
    joined: Callable[[Sequence[bytes], int], bytes]  # lists, of so many items in all, as one


def joined_json(parts: Sequence[bytes], _: int) -> bytes:
    return b"[%b]" % b",".join(part[1:-1] for part in parts)


def joined_message_pack(parts: Sequence[bytes], count: int) -> bytes:
    """https://github.com/msgpack/msgpack/blob/master/spec.md#array-format-family: array 32 takes any count."""
    return b"\xdd" + count.to_bytes(4, "big") + b"".join(part[header_bytes(part) :] for part in parts)


def header_bytes(array: bytes) -> int:
    """Of a MessagePack array: array 16, array 32, or fixarray."""
    return {0xDC: 3, 0xDD: 5}.get(array[0], 1)


JSON = Format("application/json", dump_json, orjson.Fragment, joined_json)
MESSAGE_PACK = Format("application/msgpack", dump_message_pack, ormsgpack.Fragment, joined_message_pack)


async def rendered(answer: Answer, headers: Headers, *, compressed_bytes_min: int) -> Response:
    """`headers` are the request's. Bodies of fewer bytes are sent as they are."""
    chosen = format_for(headers.get("accept"))
    body = await written(answer.value, chosen)
    extra = [*answer.headers, ("vary", "accept, accept-encoding")]
    compression = compression_for(headers.get("accept-encoding"))
    if compression and len(body) >= compressed_bytes_min:
        body = await compression.compressed(body)
        extra.append(("content-encoding", compression.name))
    return Response(body, content_type=chosen.content_type, headers=tuple(extra))


@lru_cache(maxsize=1024)
def format_for(accept: str | None) -> Format:
    """MessagePack where the caller names it and does not like JSON more: it is the cheaper one for both sides."""
    wanted = qualities(accept)
    message_pack = max((wanted.get(name, 0.0) for name in MESSAGE_PACK_TYPES), default=0.0)
    return MESSAGE_PACK if message_pack > 0 and message_pack >= wanted.get("application/json", 0.0) else JSON


async def written(value: Any, chosen: Format) -> bytes:
    if numbers_in(value, NUMBERS_PER_TURN) < NUMBERS_PER_TURN:
        return chosen.dump(value)
    return chosen.dump(await shortened(value, chosen))


async def shortened(value: Any, chosen: Format) -> Any:
    """The same with its long lists written already."""
    if isinstance(value, LongList):
        return chosen.fragment(await written_in_turns(value, chosen))
    if isinstance(value, dict):
        return {name: await shortened(part, chosen) for name, part in value.items()}
    return value


async def written_in_turns(items: LongList, chosen: Format) -> bytes:
    parts: list[bytes] = []
    for turn in turns(items):
        if parts:
            await asyncio.sleep(0)
        parts.append(chosen.dump(turn))
    return parts[0] if len(parts) == 1 else chosen.joined(parts, len(items))


def turns(items: LongList) -> Iterable[list[Any]]:
    """At least one, even of no items."""
    start, numbers = 0, 0
    for index, item in enumerate(items):
        numbers += numbers_in(item, NUMBERS_PER_TURN - numbers)
        if numbers >= NUMBERS_PER_TURN:
            yield items[start : index + 1]
            start, numbers = index + 1, 0
    if start < len(items) or not items:
        yield items[start:]


def numbers_in(value: Any, enough: int) -> int:
    """Numbers and texts inside, roughly. Whoever has counted `enough` does not look at the rest."""
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, str):
        return 1 + len(value) // 8
    if not isinstance(value, dict | list):
        return 1
    found = 0
    for part in value.values() if isinstance(value, dict) else value:
        found += numbers_in(part, enough - found)
        if found >= enough:
            break
    return found
