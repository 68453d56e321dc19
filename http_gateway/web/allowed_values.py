"""The values that a body may have at a place where it has another: msgspec names only the wrong one.

Called by http_gateway.web.json_body for a body that was refused.
"""

import re
from collections.abc import Iterator
from typing import Any

from msgspec import inspect

# Of a path such as `inputs[3].content[0].type`.
STEP = re.compile(r"\[[^\]]*\]|[^.\[]+")


def allowed_values(kind: Any, path: str) -> list[str]:
    """`kind` is the type of the body. Empty where anything of the right type would do."""
    found = [inspect.type_info(kind)]
    for step in STEP.findall(path):
        found = [inner for outer in found for inner in inside(outer, step)]
    return [str(value) for part in found for value in literals(part)]


def inside(kind: inspect.Type, step: str) -> Iterator[inspect.Type]:
    """What a field, or an item, of the type may be."""
    for part in parts(kind):
        if isinstance(part, inspect.StructType):
            yield from (field.type for field in part.fields if field.encode_name == step)
        elif isinstance(part, inspect.ListType) and step.startswith("["):
            yield part.item_type


def literals(kind: inspect.Type) -> Iterator[Any]:
    for part in parts(kind):
        if isinstance(part, inspect.LiteralType):
            yield from part.values


def parts(kind: inspect.Type) -> Iterator[inspect.Type]:
    """Of a union; of any other type itself."""
    if isinstance(kind, inspect.Metadata):
        yield from parts(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for part in kind.types:
            yield from parts(part)
    else:
        yield kind
