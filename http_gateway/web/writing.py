"""An answer's value as JSON or MessagePack, a long one in turns with other requests. Called by rendering.

Both formats are written straight from the arrays that the engine sent: orjson writes a float32 in its shortest form,
4.7 kB and 9 us for 384 of them, where a detour over Python's floats takes 8 kB and 22 us; MessagePack takes 1.9 kB and
1 us. What is not yet there, the items of a LongList, is made just before it is written.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson
import ormsgpack

from http_gateway.web.long_list import LongList
from http_gateway.web.message import Hold, ResponseBody, uncounted

# What others have to wait for at a time, whichever is reached first.
BYTES_PER_TURN = 256 << 10
SECONDS_PER_TURN = 0.001

# The items of an answer are much alike: as many are written together as take a small part of a turn, so many at most.
ITEMS_TOGETHER = 32
SECONDS_TOGETHER = SECONDS_PER_TURN / 8

# An answer with no more items than this, in all its lists together, is written at once.
ITEMS_AT_ONCE = 32


class ShortLists:
    """For `default` of both libraries: makes the lists of a value as long as they are short."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = ITEMS_AT_ONCE

    def __call__(self, value: Any) -> list[Any]:
        if isinstance(value, LongList):
            self._left -= len(value)
            if self._left >= 0:
                return list(value)
        raise TypeError


@dataclass(frozen=True, slots=True)
class Format:
    content_type: str
    dump: Callable[[Any], bytes]  # raises TypeError for a value with long lists
    list_start: Callable[[int], bytes]  # of a list of so many items
    object_start: Callable[[int], bytes]
    key: Callable[[str], bytes]
    inside: Callable[[bytes], memoryview]  # of a list: its items, without what is around them
    separator: bytes = b""
    list_end: bytes = b""
    object_end: bytes = b""


def dump_json(value: Any) -> bytes:
    return orjson.dumps(value, ShortLists(), orjson.OPT_SERIALIZE_NUMPY)


def is_writable(value: Any) -> bool:
    """Whether the value can be written in both formats. A caller's JSON may have larger numbers or deeper nesting."""
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def dump_message_pack(value: Any) -> bytes:
    return ormsgpack.packb(value, ShortLists(), ormsgpack.OPT_SERIALIZE_NUMPY)


# https://github.com/msgpack/msgpack/blob/master/spec.md: a small size is part of the first byte.
ARRAY_SIZE_BYTES = {0xDC: 2, 0xDD: 4}


def array_start(count: int) -> bytes:
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdd" + count.to_bytes(4, "big")


def map_start(count: int) -> bytes:
    return bytes((0x80 | count,)) if count < 16 else b"\xde" + count.to_bytes(2, "big")


def inside_array(array: bytes) -> memoryview:
    return memoryview(array)[1 + ARRAY_SIZE_BYTES.get(array[0], 0) :]


JSON = Format(
    "application/json",
    dump_json,
    list_start=lambda _: b"[",
    object_start=lambda _: b"{",
    key=lambda name: dump_json(name) + b":",
    inside=lambda array: memoryview(array)[1:-1],
    separator=b",",
    list_end=b"]",
    object_end=b"}",
)
MESSAGE_PACK = Format(
    "application/msgpack", dump_message_pack, array_start, map_start, key=dump_message_pack, inside=inside_array
)


async def written(value: Any, chosen: Format, hold: Hold = uncounted) -> ResponseBody:
    """At once if it is short, otherwise one part for each turn, of which `hold` is told. Raises what `hold` raises."""
    try:
        return chosen.dump(value)
    except TypeError:
        writer = Writer(chosen, hold)
        await writer.write(value)
        return writer.ended()


class Writer:
    """One long answer: the parts of the turns so far, the pieces of this one, and what is left of it."""

    def __init__(self, chosen: Format, hold: Hold) -> None:
        self._format = chosen
        self._hold = hold
        self._parts: list[bytes] = []
        self._pieces: list[bytes | memoryview] = []
        self._count = 1  # of the items that are written together next, in whichever list
        self._begin_turn()

    async def write(self, value: Any) -> None:
        """Raises TypeError for what is no value of an Answer."""
        if isinstance(value, LongList | list):
            await self._write_list(value)
        elif isinstance(value, dict):
            await self._write_object(value)
        else:
            self._pieces.append(self._format.dump(value))

    def ended(self) -> ResponseBody:
        self._end_turn()
        return self._parts[0] if len(self._parts) == 1 else self._parts

    async def _write_object(self, value: dict[str, Any]) -> None:
        self._pieces.append(self._format.object_start(len(value)))
        separator = b""
        for name, part in value.items():
            self._pieces.append(separator + self._format.key(name))
            separator = self._format.separator
            await self.write(part)
        self._pieces.append(self._format.object_end)

    async def _write_list(self, items: LongList | list[Any]) -> None:
        self._pieces.append(self._format.list_start(len(items)))
        left = iter(items)
        separator = b""
        began = time.perf_counter()
        while together := list(islice(left, self._count)):
            await self._write_items(together, separator)
            separator = self._format.separator
            together.clear()  # before others have their turn
            now = time.perf_counter()
            is_quick = now - began < SECONDS_TOGETHER
            self._count = min(2 * self._count, ITEMS_TOGETHER) if is_quick else max(1, self._count // 2)
            if self._bytes_left <= 0 or now >= self._turn_ends:
                self._end_turn()
                await asyncio.sleep(0)
                self._begin_turn()
                now = time.perf_counter()
            began = now
        self._pieces.append(self._format.list_end)

    async def _write_items(self, items: list[Any], separator: bytes) -> None:
        """All at once, unless there are lists among them or long ones in some of them."""
        if LongList not in map(type, items):
            try:
                piece = self._format.dump(items)
            except TypeError:
                pass  # each by itself
            else:
                self._pieces += separator, self._format.inside(piece)
                self._bytes_left -= len(piece)
                return
        for item in items:
            self._pieces.append(separator)
            separator = self._format.separator
            await self.write(item)

    def _end_turn(self) -> None:
        part = b"".join(self._pieces)
        self._pieces.clear()
        self._hold(len(part))
        self._parts.append(part)

    def _begin_turn(self) -> None:
        self._bytes_left = BYTES_PER_TURN
        self._turn_ends = time.perf_counter() + SECONDS_PER_TURN
