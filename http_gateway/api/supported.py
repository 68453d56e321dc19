"""Request fields of other servers that are supported in part: values that change nothing here are accepted, all others
are refused by name. No field that would change the answer is ignored.

    late_chunking: Annotated[bool | None, only(False, instead="send each chunk as an input of its own")] = None

endpoint checks every body after decoding it. String fields use a Literal instead, whose error lists the
accepted values.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from heddle.rpc.errors import ErrorKind, HeddleError


def only(*values: Any, instead: str) -> Any:
    """For `Annotated`: the field accepts null and these values. `instead` tells callers of others what to do."""
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
    described = inspect.type_info(kind)
    found = []
    for field in described.fields if isinstance(described, inspect.StructType) else ():
        about = field.type.extra if isinstance(field.type, inspect.Metadata) else None
        if about and "only" in about:
            found.append(PartlySupported(field.name, field.encode_name, about["only"], about["instead"]))
    return tuple(found)


def merge_aliases(fields: Mapping[str, Any]) -> Any:
    """The value of fields that mean the same, by name; None if none is set. Raises INVALID_INPUT if they differ."""
    values = {*fields.values()} - {None}
    if len(values) > 1:
        *others, last = (name for name, value in fields.items() if value is not None)
        message = f"{', '.join(others)} and {last} contradict each other: send one of them"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field=last)
    return values.pop() if values else None
