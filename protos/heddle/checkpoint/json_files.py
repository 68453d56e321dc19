"""Reading the JSON files of a checkpoint folder, with an error that says which file is at fault, and which field."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from heddle.rpc.settings import ConfigurationError

# What a field may have to be, and what an operator calls it. JSON has one type for numbers with a fraction and without.
NOUN_OF = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}

Kind = TypeVar("Kind")


class CheckpointError(ConfigurationError):
    """A checkpoint that cannot be served: one sentence that names the folder or file, fit to be shown as it is."""


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        missing = f"no {path.name}" if path.parent.is_dir() else "no such folder"
        raise CheckpointError(f"{path.parent} is not a model folder: {missing}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def parse_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; a file that is missing, broken or holds something else is a CheckpointError."""
    content = parse_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return content


def read_json_if_there(path: Path) -> dict[str, Any]:
    """As `read_json`, {} where there is no file."""
    return read_json(path) if path.is_file() else {}


@overload
def field_of(content: Mapping[str, Any], name: str, kind: type[Kind], path: Path, default: Kind) -> Kind: ...
@overload
def field_of(
    content: Mapping[str, Any], name: str, kind: type[Kind], path: Path, default: None = None
) -> Kind | None: ...
def field_of(content: Mapping[str, Any], name: str, kind: type[Any], path: Path, default: Any = None) -> Any:
    """The field of what `path` holds; the default where it is missing or null, a CheckpointError where it is of another
    kind."""
    value = content.get(name)
    if value is None:
        return default
    if not is_of(value, kind):
        raise CheckpointError(f"{path}: {name} {value!r} is not {NOUN_OF[kind]}")
    return value


def is_of(value: Any, kind: type[Any]) -> bool:
    """Unlike in Python, true is no number here."""
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if kind is float else kind)
