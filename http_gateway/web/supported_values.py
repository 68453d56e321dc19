"""Request fields of other servers that are supported in part: values that change nothing here are accepted, all others
are refused by name. No field that would change the answer is ignored.

    late_chunking: Annotated[bool | None, only(False, instead="send each chunk as an input of its own")] = None

Every body is checked after it is decoded. String fields use a Literal instead, whose error lists the accepted values.
"""

import functools
import json
from typing import Any

import msgspec
from msgspec import inspect

from heddle.rpc.errors import ErrorKind, HeddleError


def only(*values: Any, instead: str) -> Any:
    """For `Annotated`: the field accepts null and these values. `instead` tells other callers what to do."""
    return msgspec.Meta(extra_json_schema={"enum": [*values, None]}, extra={"only": values, "instead": instead})


def check_supported(body: Any) -> None:
    """Raises INVALID_INPUT."""
    kind: Any = type(body)
    for field, rule in restricted_fields(kind):
        value = getattr(body, field.name)
        if value is not None and value not in rule["only"]:
            allowed = " or ".join(json.dumps(value) for value in rule["only"])
            message = f"{field.encode_name} must be {allowed}, or absent: {rule['instead']}"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field=field.encode_name)


@functools.cache
def restricted_fields(kind: type) -> list[tuple[inspect.Field, dict[str, Any]]]:
    described = inspect.type_info(kind)
    fields = described.fields if isinstance(described, inspect.StructType) else ()
    found = [(field, field.type.extra) for field in fields if isinstance(field.type, inspect.Metadata)]
    return [(field, rule) for field, rule in found if rule and "only" in rule]
