"""Converts texts, token ids and truncation from the forms that callers send to the contract's messages."""

import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.api.schemas import Some, Text, TokenId, json_schema
from http_gateway.api.supported import merge_aliases

TokenIds = Annotated[list[TokenId], Some]
# One text; or a list of texts and of lists of ids; or one list of ids.
Inputs = Text | Annotated[list[Text | TokenId | TokenIds], Some]

Direction = Literal["Right", "right", "Left", "left"]
# Cohere's and NIM's values of `truncate`: NONE refuses long inputs, START and END name the side that is cut.
Truncate = Literal["NONE", "START", "END", "None", "Start", "End", "none", "start", "end"]

SIDES = {
    "RIGHT": inference_pb2.TRUNCATION_SIDE_RIGHT,
    "END": inference_pb2.TRUNCATION_SIDE_RIGHT,
    "LEFT": inference_pb2.TRUNCATION_SIDE_LEFT,
    "START": inference_pb2.TRUNCATION_SIDE_LEFT,
}

Dimensions = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
TokensMax = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]


class TruncationFields(msgspec.Struct, kw_only=True):
    """What to do with texts that are too long. Null is the same as absent."""

    truncate: bool | Truncate | None = None
    truncation_direction: Direction | None = None
    is_truncated: bool | None = msgspec.field(default=None, name="truncation")  # Voyage's name for truncate
    # vLLM's name for truncation_direction.
    side: Direction | None = msgspec.field(default=None, name="truncation_side")
    # vLLM's: number of tokens to keep; -1 = the model's limit.
    truncate_prompt_tokens: (
        Annotated[int, msgspec.Meta(ge=-1, le=2**32 - 1), json_schema(**{"not": {"const": 0}})] | None
    ) = None

    @property
    def truncation(self) -> inference_pb2.Truncation:
        """UNSPECIFIED leaves it to the server's setting. A request with truncate_prompt_tokens allows truncation unless
        it says otherwise."""
        if self.truncate is None and self.is_truncated is None:
            is_limited = self.truncate_prompt_tokens is not None
            return inference_pb2.TRUNCATION_ALLOW if is_limited else inference_pb2.TRUNCATION_UNSPECIFIED
        truncate = self.truncate.upper() != "NONE" if isinstance(self.truncate, str) else self.truncate
        is_allowed = merge_aliases({"truncate": truncate, "truncation": self.is_truncated})
        return inference_pb2.TRUNCATION_ALLOW if is_allowed else inference_pb2.TRUNCATION_REFUSE

    @property
    def truncation_side(self) -> inference_pb2.TruncationSide:
        """UNSPECIFIED leaves it to the server's setting."""
        truncate = self.truncate if isinstance(self.truncate, str) else ""
        if not (truncate or self.truncation_direction or self.side):
            return inference_pb2.TRUNCATION_SIDE_UNSPECIFIED
        aliases = {
            "truncate": SIDES.get(truncate.upper()),
            "truncation_direction": SIDES.get((self.truncation_direction or "").upper()),
            "truncation_side": SIDES.get((self.side or "").upper()),
        }
        side: inference_pb2.TruncationSide | None = merge_aliases(aliases)
        return side or inference_pb2.TRUNCATION_SIDE_UNSPECIFIED

    @property
    def input_tokens_max(self) -> int:
        """Limit of tokens, special tokens included; 0 = the model's limit."""
        if self.truncate_prompt_tokens == 0:
            message = "truncate_prompt_tokens must be at least 1, or -1 for the model's limit"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="truncate_prompt_tokens")
        return max(self.truncate_prompt_tokens or 0, 0)


class TEIBody(TruncationFields, kw_only=True):
    """The fields of all TEI routes. Unknown fields are ignored."""

    model: str | None = None


def shared_fields(body: TEIBody) -> dict[str, Any]:
    """The fields that all bodies have, as arguments for building the body of another route."""
    return {name: getattr(body, name) for name in TEIBody.__struct_fields__}


def listed(value: Inputs) -> tuple[Sequence[str | int | TokenIds], bool]:
    """The inputs as a list, and whether the caller sent a list. A string and a flat list of ids are one input each,
    which errors name without an index."""
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
    """Appends the inputs to `to`, a field of a request. Raises INVALID_INPUT for a single token id. `is_list` is the
    second result of `listed`."""
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
