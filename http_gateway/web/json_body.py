"""Decodes the JSON of a request's body into a typed struct, or says which parameter is wrong, and how.

The content type is ignored: many clients send none, or a wrong one.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from heddle.rpc.errors import ErrorKind, HeddleError

T = TypeVar("T")

# msgspec's messages: "Expected `int`, got `str` - at `$.dimensions`", "Object missing required field `input`".
REPORT = re.compile(r"(?P<what>.*?)(?: - at `\$(?:\.(?P<path>[^`]*))?`)?")
INVALID_VALUE = "Invalid enum value"
MISSING = re.compile(r"Object missing required field `(?P<name>\w+)`")

# Of a path such as `inputs[3].content[0].type`.
PATH_STEP = re.compile(r"\[[^\]]*\]|[^.\[]+")


def decode_json(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Raises INVALID_INPUT."""
    body = body.removeprefix(codecs.BOM_UTF8)  # .NET and PowerShell write one
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise wrong_type(str(error), decoder.type) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        refuse_json(body)


def wrong_type(report: str, expected: Any) -> HeddleError:
    """`report` is msgspec's, `expected` the type that the body should have."""
    match = REPORT.fullmatch(report)
    what, path = (match["what"], match["path"]) if match else (report, None)
    if missing := MISSING.fullmatch(what):
        path = ".".join(filter(None, (path, missing["name"])))
        return invalid(f"{path} is required", field=path)
    path = path or ""
    message = f"{path or 'the body'}: {what[:1].lower()}{what[1:].replace('`', '')}"
    if what.startswith(INVALID_VALUE) and (allowed := allowed_values(expected, path)):
        message += f", it is one of {', '.join(allowed)}" if len(allowed) > 1 else f", it is {allowed[0]}"
    return invalid(message, field=first_field(path))


def refuse_json(body: bytes) -> NoReturn:
    """Raises INVALID_INPUT that says why the body is not JSON: msgspec's own reports say little."""
    if not body.strip():
        raise invalid("the body is empty: JSON is expected")
    try:
        value = json.loads(body, parse_constant=refuse_constant)
    except RecursionError:
        raise invalid("the body is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not JSON: it is not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise invalid(f"the body is not JSON: {error}") from None
    if path := find_surrogate(value):
        message = f"{path}: the text is not Unicode: it has a lone surrogate"
        raise invalid(message, field=first_field(path))
    raise invalid("the body is not JSON that can be read")


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def find_surrogate(value: object, path: str = "") -> str:
    """The path of the first text that is not Unicode; "" if there is none."""
    if isinstance(value, str):
        return "" if value.isascii() or is_unicode(value) else path
    if isinstance(value, dict):
        found = (find_surrogate(part, f"{path}.{name}" if path else name) for name, part in value.items())
    elif isinstance(value, list):
        found = (find_surrogate(part, f"{path}[{index}]") for index, part in enumerate(value))
    else:
        return ""
    return next(filter(None, found), "")


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def allowed_values(expected: Any, path: str) -> list[str]:
    """The literals that a body of this type may have at the path, which msgspec does not list; empty if any value of
    the right type is allowed."""
    types = [inspect.type_info(expected)]
    for step in PATH_STEP.findall(path):
        types = [inner for outer in types for inner in inner_types(outer, step)]
    members = (member for kind in types for member in union_members(kind))
    return [str(value) for member in members if isinstance(member, inspect.LiteralType) for value in member.values]


def inner_types(kind: inspect.Type, step: str) -> Iterator[inspect.Type]:
    """The types that a field or an item of this type may have."""
    for member in union_members(kind):
        if isinstance(member, inspect.StructType):
            yield from (field.type for field in member.fields if field.encode_name == step)
        elif isinstance(member, inspect.ListType) and step.startswith("["):
            yield member.item_type


def union_members(kind: inspect.Type) -> Iterator[inspect.Type]:
    """A type that is not a union is its own only member."""
    if isinstance(kind, inspect.Metadata):
        yield from union_members(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from union_members(member)
    else:
        yield kind


def first_field(path: str) -> str:
    return re.split(r"[.\[]", path)[0]


def invalid(message: str, field: str = "") -> HeddleError:
    return HeddleError(ErrorKind.INVALID_INPUT, message, field=field)
