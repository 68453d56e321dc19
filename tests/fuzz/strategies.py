"""Inputs for fuzzing: JSON and bytes near an example, and protobuf messages of any type."""

import copy
import json
from array import array
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# For a test; `python -m tests.fuzz` has no bounds.
# The same examples in each run: new ones are found by `python -m tests.fuzz`, not by somebody's unrelated change.
BOUNDED = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

LONG = 3000  # words
DEPTH = 4  # of messages in messages

TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", " ", "\0", "a" * 300, "word " * LONG, "[MASK] [SEP]", "\u202e\ufeff", "e\u0301" * 50, "\U0001f642"]
)
INTEGERS = st.sampled_from([0, 1, 2, 7, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1])
NUMBERS = INTEGERS | st.integers() | st.floats() | st.just(10**400)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS


def values(names: Sequence[str]) -> st.SearchStrategy[Any]:
    """Any JSON value."""
    names_of = st.sampled_from(list(names)) | TEXTS
    return st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names_of, inner, max_size=4), max_leaves=8
    )


@st.composite
def json_near(draw: st.DrawFn, example: Any, names: Sequence[str] = ("name",)) -> Any:
    """The example with a few values replaced, added or left out. `names` are those of fields."""
    holder = [copy.deepcopy(example)]
    for _ in range(draw(st.integers(0, 3))):
        place: Any = holder
        inner = holder[0] if holder else None
        while isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
            place = inner
            inner = place[draw(key_of(place))]
        change(draw, place, names)
    return holder[0] if holder else None


def change(draw: st.DrawFn, place: Any, names: Sequence[str]) -> None:
    what = draw(st.sampled_from(["replace", "add", "leave out"]))
    if what == "add" and isinstance(place, dict):
        place[draw(st.sampled_from(list(names)) | TEXTS)] = draw(values(names))
    elif what == "add":
        place.append(draw(values(names)))
    elif place and what == "replace":
        place[draw(key_of(place))] = draw(values(names))
    elif place:
        del place[draw(key_of(place))]


def key_of(place: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(list(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1)


def encode_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def bytes_near(draw: st.DrawFn, *examples: bytes) -> bytes:
    """An example with a few short pieces replaced, added, left out or repeated, or any bytes."""
    data = bytearray(draw(st.sampled_from(examples) | st.binary()))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        piece = bytes(data[start : start + 16]) * draw(st.integers(2, 200)) if draw(st.booleans()) else b""
        data[start : start + draw(st.integers(0, 8))] = piece or draw(st.binary(max_size=8))
    return bytes(data)


def tokens(count_max: int = 40) -> st.SearchStrategy[bytes]:
    """Token ids or lengths: uint32."""
    one = st.integers(0, 40) | st.integers(0, 2**32 - 1)
    return st.lists(one, max_size=count_max).map(lambda ids: array("I", ids).tobytes())


def messages(kind: Any, depth: int = DEPTH) -> st.SearchStrategy[Message]:
    """Messages of the type of a descriptor, with any of its fields."""
    make = GetMessageClass(kind)
    fields = {field.name: field_values(field, depth) for field in kind.fields if depth or field.message_type is None}
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: make(**chosen))


def field_values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return st.dictionaries(one_value(key, depth), one_value(value, depth), max_size=3)
    one = one_value(field, depth)
    return st.lists(one, max_size=4) if field.is_repeated else one


def one_value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, depth - 1)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values]) | st.integers(-1, 99)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return tokens() | st.binary() | TEXTS.map(str.encode)
    if field.type == FieldDescriptor.TYPE_STRING:
        return TEXTS
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return st.floats(width=32)
    bits = 32 if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32) else 64
    is_signed = field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    return st.integers(0, 8) | st.integers(low, high)
