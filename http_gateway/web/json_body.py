"""The JSON of a request's body as a typed struct, or a refusal that says which parameter is wrong, and how.

Called by the routes. The content type is not looked at: many a client sends none, or a wrong one.
"""

import codecs
import json
import re
from typing import Any, NoReturn, TypeVar

import msgspec

from heddle.rpc.errors import ErrorKind, HeddleError
from http_gateway.web.allowed_values import allowed_values

T = TypeVar("T")

# msgspec's: "Expected `int`, got `str` - at `$.dimensions`", "Object missing required field `input`".
PLACE = re.compile(r"(?P<what>.*?)(?: - at `\$(?:\.(?P<path>[^`]*))?`)?")
INVALID_VALUE = "Invalid enum value"
MISSING = re.compile(r"Object missing required field `(?P<name>\w+)`")


def decoded(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Raises INVALID_INPUT."""
    body = body.removeprefix(codecs.BOM_UTF8)  # .NET and PowerShell write one
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise wrong_type(str(error), decoder.type) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        refuse(body)


def wrong_type(report: str, kind: Any) -> HeddleError:
    """`kind` is the type that the body should have."""
    match = PLACE.fullmatch(report)
    what, path = (match["what"], match["path"]) if match else (report, None)
    if missing := MISSING.fullmatch(what):
        path = ".".join(filter(None, (path, missing["name"])))
        return HeddleError(ErrorKind.INVALID_INPUT, f"{path} is required", field=path)
    path = path or ""
    message = f"{path or 'the body'}: {what[:1].lower()}{what[1:].replace('`', '')}"
    if what.startswith(INVALID_VALUE) and (allowed := allowed_values(kind, path)):
        message += f", it is one of {', '.join(allowed)}" if len(allowed) > 1 else f", it is {allowed[0]}"
    return HeddleError(ErrorKind.INVALID_INPUT, message, field=re.split(r"[.\[]", path)[0])


def refuse(body: bytes) -> NoReturn:
    """Raises INVALID_INPUT with what is wrong with JSON that msgspec could not read: it does not tell much itself."""
    if not body.strip():
        raise invalid("the body is empty: JSON is expected")
    try:
        value = json.loads(body, parse_constant=no_number)
    except RecursionError:
        raise invalid("the body is not taken: it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not JSON: it is not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise invalid(f"the body is not JSON: {error}") from None
    if place := place_of_surrogate(value):
        field = re.split(r"[.\[]", place)[0]
        raise invalid(f"{place}: the text is not Unicode: it has a lone surrogate", field=field)
    raise invalid("the body is not JSON that can be read")


def place_of_surrogate(value: object, place: str = "") -> str:
    """Of the first text that is not Unicode; "" where there is none."""
    if isinstance(value, str):
        return "" if value.isascii() or is_unicode(value) else place
    if isinstance(value, dict):
        places = (place_of_surrogate(part, f"{place}.{name}" if place else name) for name, part in value.items())
    elif isinstance(value, list):
        places = (place_of_surrogate(part, f"{place}[{index}]") for index, part in enumerate(value))
    else:
        return ""
    return next(filter(None, places), "")


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def invalid(message: str, field: str = "") -> HeddleError:
    return HeddleError(ErrorKind.INVALID_INPUT, message, field=field)
