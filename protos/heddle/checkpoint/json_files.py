"""Reads the JSON files of a checkpoint folder. Errors name the file and the field."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from heddle.checkpoint.damaged_files import START_BYTES, explain_start
from heddle.rpc.settings import ConfigurationError

# Types of fields, as error messages call them. JSON does not distinguish whole numbers from others.
TYPE_NAMES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}

Kind = TypeVar("Kind")


class CheckpointError(ConfigurationError):
    """A checkpoint cannot be served. The message is one sentence for the operator that names the file or folder."""


def read_text(path: Path) -> str:
    """Raises CheckpointError for a file that is missing, or that holds something else, such as a Git LFS pointer."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        missing = f"no {path.name}" if path.parent.is_dir() else "no such folder"
        raise CheckpointError(f"{path.parent} is not a model folder: {missing}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    damage = explain_start(text[:START_BYTES].encode())
    if damage is not None:
        raise CheckpointError(f"{path} {damage}")
    return text


def parse_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    except RecursionError:
        raise CheckpointError(f"{path} is nested too deeply") from None


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError for a file that is missing or broken, or that does not hold an object."""
    content = parse_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return content


def read_json_if_exists(path: Path) -> dict[str, Any]:
    """Like `read_json`, but returns {} if there is no file."""
    return read_json(path) if path.is_file() else {}


@overload
def get_field(content: Mapping[str, Any], name: str, kind: type[Kind], path: Path, default: Kind) -> Kind: ...
@overload
def get_field(
    content: Mapping[str, Any], name: str, kind: type[Kind], path: Path, default: None = None
) -> Kind | None: ...
def get_field(content: Mapping[str, Any], name: str, kind: type[Any], path: Path, default: Any = None) -> Any:
    """Returns the default for a field that is missing or null. Raises CheckpointError for one of another type. `path`
    is the file that `content` was read from."""
    value = content.get(name)
    if value is None:
        return default
    if not has_type(value, kind):
        raise CheckpointError(f"{path}: {name} {value!r} is not {TYPE_NAMES[kind]}")
    return value


def get_positive(content: Mapping[str, Any], name: str, path: Path) -> int:
    """Returns a required field. Raises CheckpointError."""
    value = content.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{path} has no {name}, or one that is not a positive number")
    return value


def has_type(value: Any, kind: type[Any]) -> bool:
    """Unlike in Python, a boolean is not a number."""
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if kind is float else kind)
