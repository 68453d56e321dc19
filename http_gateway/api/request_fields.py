"""Request fields that several APIs have: texts, token ids, truncation and input types, under all their names, and their
conversion to the contract's messages.

The constraints that `json_schema` adds appear in /openapi.json only. Handlers and tokenizer pods check inputs and word
the errors: an empty list is another kind of error than a wrong type, and the limit of inputs is a setting.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2, model_pb2


def json_schema(**schema: Any) -> Any:
    return msgspec.Meta(extra_json_schema=schema)


Text = Annotated[str, json_schema(minLength=1)]
TokenId = Annotated[int, json_schema(minimum=0, maximum=2**32 - 1)]

# Constraints of lists.
NonEmpty = json_schema(minItems=1)
OneOrTwo = json_schema(minItems=1, maxItems=2)

Texts = Text | Annotated[list[Text], NonEmpty]
TokenIds = Annotated[list[TokenId], NonEmpty]
# One text; or a list of texts and of lists of ids; or one list of ids.
Inputs = Text | Annotated[list[Text | TokenId | TokenIds], NonEmpty]
InputList = Sequence[str | int | TokenIds]

Direction = Literal["Right", "right", "Left", "left"]
# Cohere's and NIM's values of `truncate`: NONE refuses long inputs, START and END name the side that is cut.
Truncate = Literal["NONE", "START", "END", "None", "Start", "End", "none", "start", "end"]

TRUNCATION_SIDES = {
    "RIGHT": inference_pb2.TRUNCATION_SIDE_RIGHT,
    "END": inference_pb2.TRUNCATION_SIDE_RIGHT,
    "LEFT": inference_pb2.TRUNCATION_SIDE_LEFT,
    "START": inference_pb2.TRUNCATION_SIDE_LEFT,
}

Dimensions = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
TokensMax = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]


def merge_aliases(fields: Mapping[str, Any]) -> Any:
    """The value of fields that mean the same; None if none is set. Raises INVALID_INPUT if two values differ."""
    values = {*fields.values()} - {None}
    if len(values) > 1:
        *others, last = (name for name, value in fields.items() if value is not None)
        message = f"{', '.join(others)} and {last} contradict each other: send one of them"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field=last)
    return values.pop() if values else None


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

    def set_truncation(self, call: Any) -> None:
        """Sets the fields for truncation of a request to the tokenizer pods."""
        call.truncation = self.truncation
        call.truncation_side = self.truncation_side
        call.input_tokens_max = self.input_tokens_max

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
            "truncate": TRUNCATION_SIDES.get(truncate.upper()),
            "truncation_direction": TRUNCATION_SIDES.get((self.truncation_direction or "").upper()),
            "truncation_side": TRUNCATION_SIDES.get((self.side or "").upper()),
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


class CommonFields(TruncationFields, kw_only=True):
    """The fields of nearly all bodies. Unknown fields are ignored."""

    model: str | None = None

    def common_fields(self) -> dict[str, Any]:
        """Arguments for the body of another route."""
        return {name: getattr(self, name) for name in CommonFields.__struct_fields__}


def list_inputs(value: Inputs) -> tuple[InputList, bool]:
    """The inputs, and whether the caller sent a list of them. A string and a flat list of ids are one input each, which
    errors name without an index."""
    if isinstance(value, str):
        return [value], False
    if value and isinstance(value[0], int) and all(isinstance(item, int) for item in value):
        return [value], False  # type: ignore[list-item]
    return value, True


def list_texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def add_inputs(
    to: RepeatedCompositeFieldContainer[inference_pb2.Input], inputs: InputList, field: str, *, is_list: bool = True
) -> None:
    """Appends the inputs to `to`, a field of a request. `is_list` is the second result of `list_inputs`. Raises
    INVALID_INPUT for a token id that is not in a list."""
    for index, item in enumerate(inputs):
        if isinstance(item, str):
            to.add(text=item)
        else:
            to.add(token_ids=pack_token_ids(item, f"{field}[{index}]" if is_list else field, field))


def pack_token_ids(ids: int | TokenIds, place: str, field: str) -> bytes:
    """uint32, little-endian."""
    if isinstance(ids, int):
        message = f"{place}: a single token id: send the ids of each text as a list"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field=field)
    try:
        return struct.pack(f"<{len(ids)}I", *ids)
    except struct.error:
        message = f"{place}: token ids must be from 0 to 2^32 - 1"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field=field) from None


def check_count(count: int, limit: int, field: str, things: str = "inputs") -> None:
    """Raises EMPTY_INPUT and TOO_LARGE before anything is sent on, with the caller's own name for the field."""
    if not count:
        raise HeddleError(ErrorKind.EMPTY_INPUT, f"{field} is empty: a request needs at least one", field=field)
    check_at_most(count, limit, field, things)


def check_at_most(count: int, limit: int, field: str, things: str = "inputs") -> None:
    if count > limit:
        message = f"{field} holds {count} {things}, the limit is {limit}"
        raise HeddleError(ErrorKind.TOO_LARGE, message, field=field)


QUERY_PROMPTS = ("search_query", "query", "retrieval.query", "s2p_query")
DOCUMENT_PROMPTS = ("search_document", "document", "passage", "retrieval.passage")

# The prompt of an input type is the first of these names that the model has. Cohere's types come first, then Voyage's
# and NIM's.
PROMPTS_OF_INPUT_TYPE = {
    "search_query": QUERY_PROMPTS,
    "search_document": DOCUMENT_PROMPTS,
    "classification": ("classification",),
    "clustering": ("clustering", "separation"),
    "image": (),  # images are not supported, but texts to compare with images have this type too
    "query": ("query", *QUERY_PROMPTS),
    "document": ("document", *DOCUMENT_PROMPTS),
    "passage": ("passage", *DOCUMENT_PROMPTS),
}


def find_prompt(input_type: str, model: model_pb2.Model) -> str:
    """The name of the prompt for an input type, which may also be the name of a prompt; "", the model's default, if it
    has none for this type. Raises INVALID_INPUT for any other input type."""
    possible = dict.fromkeys((*PROMPTS_OF_INPUT_TYPE, *model.prompt_names))
    if input_type not in possible:
        message = f"input_type must be one of {', '.join(possible)}, not {input_type!r}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="input_type")
    names: Iterable[str] = PROMPTS_OF_INPUT_TYPE.get(input_type, (input_type,))
    return next((name for name in names if name in model.prompt_names), "")
