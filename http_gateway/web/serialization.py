"""Serializes the value of an answer as JSON or MessagePack; a long one in turns with other requests.

Numbers are written straight from the arrays that the engine sent: orjson writes 384 float32 in their shortest form in
9 us and 4.7 kB, where a detour through Python's floats takes 22 us and 8 kB; MessagePack takes 1 us and 1.9 kB. The
items of a LazyList are made just before they are written; until then a marker stands in for the list.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson
import ormsgpack

from heddle.rpc.waiting import long_work
from http_gateway.web.message import LazyList, Reserve, ResponseBody, reserve_nothing

# How long other requests wait, whichever is reached first.
BYTES_PER_TURN = 256 << 10
SECONDS_PER_TURN = 0.001

# Items are written in chunks that take a small part of a turn.
CHUNK_ITEMS_MAX = 32
SECONDS_PER_CHUNK = SECONDS_PER_TURN / 8

# An answer with no more items than this, in all its lists together, is written at once.
ITEMS_AT_ONCE = 32

# Random, so that no text of an answer can be mistaken for it.
MARKER = secrets.token_hex(16)

# Answers put this many levels of lists and objects around a caller's value, or fewer.
ANSWER_LEVELS_MAX = 8

Default = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Format:
    content_type: str
    dump: Callable[[Any, Default | None], bytes]
    start_list: Callable[[int], bytes]  # of this many items
    separator: bytes
    end_list: bytes

    def strip_list(self, dumped: bytes, count: int) -> memoryview:
        """The items of a list of `count`, without what encloses them."""
        return memoryview(dumped)[len(self.start_list(count)) : len(dumped) - len(self.end_list)]


def dump_json(value: Any, default: Default | None = None) -> bytes:
    return orjson.dumps(value, default, orjson.OPT_SERIALIZE_NUMPY)


def dump_message_pack(value: Any, default: Default | None = None) -> bytes:
    return ormsgpack.packb(value, default, ormsgpack.OPT_SERIALIZE_NUMPY)


def start_array(count: int) -> bytes:
    """https://github.com/msgpack/msgpack/blob/master/spec.md#array-format-family"""
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdd" + count.to_bytes(4, "big")


JSON = Format("application/json", dump_json, lambda _: b"[", b",", b"]")
MESSAGE_PACK = Format("application/msgpack", dump_message_pack, start_array, b"", b"")


def can_serialize(value: Any) -> bool:
    """Whether both formats can hold the value inside an answer. A caller's JSON may have larger numbers or deeper
    nesting."""
    for _ in range(ANSWER_LEVELS_MAX):
        value = [value]
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


async def serialize(value: Any, form: Format, reserve: Reserve = reserve_nothing) -> ResponseBody:
    """A short answer is made at once, a long one in one part per turn. `reserve` is called with the size of each part
    and may raise. Raises TypeError for a value that neither format has."""
    dumped, lazy_lists = dump_short(value, form)
    if not lazy_lists:
        return dumped
    serializer = Serializer(form, reserve)
    await serializer.write(dumped, lazy_lists)
    return serializer.finish()


def dump_short(value: Any, form: Format) -> tuple[bytes, list[LazyList]]:
    """The value with short lists written out and markers for long ones, and those long ones in the same order."""
    lazy_lists: list[LazyList] = []
    items_left = ITEMS_AT_ONCE

    def default(part: Any) -> list[Any] | str:
        nonlocal items_left
        if not isinstance(part, LazyList):
            raise TypeError
        if len(part) > items_left:
            lazy_lists.append(part)
            return MARKER
        items_left -= len(part)
        return list(part)

    return form.dump(value, default), lazy_lists


class Serializer:
    """Writes one long answer: the parts of earlier turns, and the pieces of this one."""

    def __init__(self, form: Format, reserve: Reserve) -> None:
        self._form = form
        self._marker = form.dump(MARKER, None)
        self._reserve = reserve
        self._parts: list[bytes] = []
        self._pieces: list[bytes | memoryview] = []
        self._chunk_items = 1  # of the next chunk, in whichever list
        self._turn_bytes = 0
        self._turn_began = self._chunk_began = time.perf_counter()

    async def write(self, dumped: bytes, lazy_lists: list[LazyList]) -> None:
        """Writes each list in the place of its marker."""
        first, *pieces = dumped.split(self._marker)
        self._add(first)
        for items, piece in zip(lazy_lists, pieces, strict=True):
            await self._write_list(items)
            self._add(piece)

    def finish(self) -> ResponseBody:
        self._end_turn()
        return self._parts[0] if len(self._parts) == 1 else self._parts

    async def _write_list(self, items: LazyList) -> None:
        self._add(self._form.start_list(len(items)))
        separator = b""
        remaining = iter(items)
        while chunk := list(islice(remaining, self._chunk_items)):
            dumped, lazy_lists = dump_short(chunk, self._form)
            stripped = self._form.strip_list(dumped, len(chunk))
            chunk.clear()  # the items may be large, and others have their turn next
            self._add(separator)
            separator = self._form.separator
            if lazy_lists:
                await self.write(bytes(stripped), lazy_lists)
            else:
                self._add(stripped)
            await self._end_chunk()
        self._add(self._form.end_list)

    async def _end_chunk(self) -> None:
        now = time.perf_counter()
        is_quick = now - self._chunk_began < SECONDS_PER_CHUNK
        self._chunk_items = min(2 * self._chunk_items, CHUNK_ITEMS_MAX) if is_quick else max(1, self._chunk_items // 2)
        self._chunk_began = now
        if self._turn_bytes >= BYTES_PER_TURN or now - self._turn_began >= SECONDS_PER_TURN:
            self._end_turn()
            await long_work().next_turn()
            self._turn_bytes = 0
            self._turn_began = self._chunk_began = time.perf_counter()

    def _add(self, piece: bytes | memoryview) -> None:
        self._pieces.append(piece)
        self._turn_bytes += len(piece)

    def _end_turn(self) -> None:
        part = b"".join(self._pieces)
        self._pieces.clear()
        self._reserve(len(part))
        self._parts.append(part)
