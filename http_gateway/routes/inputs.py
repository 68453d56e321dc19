"""The forms in which callers send texts, token ids and truncation, and what they are in the contract's messages."""

import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.routes.schemas import Some, Text, TokenId

TokenIds = Annotated[list[TokenId], Some]
# One text; or a list of texts and of lists of ids; or one list of ids.
Inputs = Text | Annotated[list[Text | TokenId | TokenIds], Some]

Direction = Literal["Right", "right", "Left", "left"]

SIDES: dict[Direction | None, inference_pb2.TruncationSide] = {
    None: inference_pb2.TRUNCATION_SIDE_UNSPECIFIED,
    "Right": inference_pb2.TRUNCATION_SIDE_RIGHT,
    "right": inference_pb2.TRUNCATION_SIDE_RIGHT,
    "Left": inference_pb2.TRUNCATION_SIDE_LEFT,
    "left": inference_pb2.TRUNCATION_SIDE_LEFT,
}


class TruncationFields(msgspec.Struct, kw_only=True):
    """How TEI's callers say what becomes of a text that is too long. Null is the same as absent."""

    truncate: bool | None = None
    truncation_direction: Direction | None = None

    @property
    def truncation(self) -> inference_pb2.Truncation:
        """Whether; without a word as the server is set up."""
        if self.truncate is None:
            return inference_pb2.TRUNCATION_UNSPECIFIED
        return inference_pb2.TRUNCATION_ALLOW if self.truncate else inference_pb2.TRUNCATION_REFUSE

    @property
    def truncation_side(self) -> inference_pb2.TruncationSide:
        """Where; without a word as the server is set up."""
        return SIDES[self.truncation_direction]


class TEIBody(TruncationFields, kw_only=True):
    """What every body of TEI's routes may have. Unknown fields are ignored."""

    model: str | None = None


def shared_fields(body: TEIBody) -> dict[str, Any]:
    """What a body has in common with every other, to make one of another route of it."""
    return {name: getattr(body, name) for name in TEIBody.__struct_fields__}


def listed(value: Inputs) -> tuple[Sequence[str | int | TokenIds], bool]:
    """Inputs, one by one, and whether it was the caller who listed them: a string is one, and so is a flat list of ids,
    and of those the caller knows no index."""
    if isinstance(value, str):
        return [value], False
    if value and isinstance(value[0], int) and all(isinstance(item, int) for item in value):
        return [value], False  # type: ignore[list-item]
    return value, True


def add_inputs(
    to: RepeatedCompositeFieldContainer[inference_pb2.Input],
    inputs: Sequence[str | int | TokenIds],
    field: str,
    *,
    is_list: bool = True,
) -> None:
    """As messages, in the request that `to` is of. Raises INVALID_INPUT for what is neither a text nor a list of token
    ids. `is_list` is what `listed` says."""
    for index, item in enumerate(inputs):
        if isinstance(item, str):
            to.add(text=item)
        else:
            to.add(token_ids=packed(item, f"{field}[{index}]" if is_list else field, field))


def packed(ids: int | TokenIds, place: str, field: str) -> bytes:
    """uint32, little-endian."""
    if isinstance(ids, int):
        raise HeddleError(
            ErrorKind.INVALID_INPUT, f"{place}: one token id by itself: those of a text are one list", field=field
        )
    try:
        return struct.pack(f"<{len(ids)}I", *ids)
    except struct.error:
        message = f"{place}: token ids must be from 0 to 2^32 - 1"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field=field) from None


def check_count(count: int, limit: int, field: str, things: str = "inputs") -> None:
    """Raises EMPTY_INPUT and TOO_LARGE here, before anything is sent on, with the caller's own name for the field."""
    if not count:
        raise HeddleError(ErrorKind.EMPTY_INPUT, f"{field} is empty: a request needs at least one", field=field)
    check_at_most(count, limit, field, things)


def check_at_most(count: int, limit: int, field: str, things: str = "inputs") -> None:
    if count > limit:
        message = f"{field} holds {count} {things}, the limit is {limit}"
        raise HeddleError(ErrorKind.TOO_LARGE, message, field=field)
