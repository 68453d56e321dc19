"""Fields of other servers' requests that are honoured in part: some of their values change nothing here, and any other
is refused by name. A field that would change the answer is never dropped in silence.

    late_chunking: Annotated[bool | None, only(False, instead="send each chunk as an input of its own")] = None

http_gateway.endpoint checks every body that it has decoded. A field whose values are texts needs none of this: a
Literal refuses all others too, and names those that it takes.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from heddle.rpc.errors import ErrorKind, HeddleError


def only(*values: Any, instead: str) -> Any:
    """For `Annotated`: beside null, the field has no other values than these. `instead` says what to do."""
    return msgspec.Meta(extra_json_schema={"enum": [*values, None]}, extra={"only": values, "instead": instead})


class PartlySupported(NamedTuple):
    attribute: str
    name: str  # in JSON
    values: tuple[Any, ...]
    instead: str


def check_supported(body: Any) -> None:
    """Raises INVALID_INPUT."""
    kind: Any = type(body)
    for field in partly_supported(kind):
        value = getattr(body, field.attribute)
        if value is not None and value not in field.values:
            allowed = " or ".join(json.dumps(value) for value in field.values)
            message = f"{field.name} must be {allowed}, or absent: {field.instead}"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field=field.name)


@functools.cache
def partly_supported(kind: type) -> tuple[PartlySupported, ...]:
    """Of the type of a body."""
    described = inspect.type_info(kind)
    found = []
    for field in described.fields if isinstance(described, inspect.StructType) else ():
        about = field.type.extra if isinstance(field.type, inspect.Metadata) else None
        if about and "only" in about:
            found.append(PartlySupported(field.name, field.encode_name, about["only"], about["instead"]))
    return tuple(found)


def merge_aliases(wishes: Mapping[str, Any]) -> Any:
    """What fields that mean the same say, by name; None where none is sent. Raises INVALID_INPUT where they differ."""
    said = {*wishes.values()} - {None}
    if len(said) > 1:
        *others, last = (name for name, value in wishes.items() if value is not None)
        message = f"{', '.join(others)} and {last} contradict each other: send one of them"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field=last)
    return said.pop() if said else None
