"""Loads a `config.yaml`: YAML, then the schema, then BEI's rules. Reports all mistakes at once, one line each.

Unknown fields are accepted, as Truss does, unless they look like a misspelt known field.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from heddle.config.rules import find_broken_rules
from heddle.config.schema import NoEffect, TrussConfig
from heddle.config.translation import is_setting
from heddle.rpc.settings import ConfigurationError, suggestion

# What a value must be, by the type of pydantic's error and the limits that come with it.
REQUIREMENTS = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_parsing_size": "a number of fewer digits",
    "int_type": "a whole number",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "model_type": "a mapping",
    "multiple_of": "a multiple of {multiple_of}",
    "string_pattern_mismatch": "of the form {pattern}",
    "string_too_short": "a text that is not empty",
    "string_type": "a text",
}

# Values of these are not repeated in messages.
SECRET_FIELDS = ("environment_variables", "secrets")


class ConfigFileError(ConfigurationError):
    def __init__(self, path: Path, mistakes: list[str]) -> None:
        super().__init__("\n".join(f"{path}: {mistake}" for mistake in mistakes))


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    path: Path
    config: TrussConfig
    without_effect: Mapping[str, str]  # fields that the file states and that do nothing here -> why


def load_config(path: Path) -> LoadedConfig:
    """`path` is the file, or the folder of a Truss. Raises ConfigFileError."""
    if path.is_dir():
        path /= "config.yaml"
    values = read_yaml(path)
    mistakes, without_effect = check_names(TrussConfig, values)
    try:
        config = TrussConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigFileError(path, [*mistakes, *map(describe_error, error.errors())]) from None
    mistakes += find_broken_rules(config)
    if mistakes:
        raise ConfigFileError(path, mistakes)
    foreign = [name for name in config.environment_variables if not is_setting(name)]
    without_effect |= {f"environment_variables.{name}": "Heddle has no such setting" for name in foreign}
    return LoadedConfig(path, config, without_effect)


def read_yaml(path: Path) -> dict[Any, Any]:
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        document = loader.get_single_node()
        check_duplicates(document)
        values = loader.construct_document(document) if document else None
    except OSError as error:
        raise ConfigFileError(path, [error.strerror or str(error)]) from None
    except UnicodeDecodeError:
        raise ConfigFileError(path, ["this is not a text in UTF-8"]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigFileError(path, [f"{place}{error.problem or error}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that does not exist; a deep nesting
        raise ConfigFileError(path, [" ".join(str(error).split())]) from None
    if not isinstance(values, dict):
        raise ConfigFileError(path, ["must be a mapping of fields, as in the documentation of Truss"])
    return values


def check_duplicates(document: yaml.Node | None) -> None:
    """Raises MarkedYAMLError for a field that is stated twice. YAML would let the last one win."""
    pending, visited = [document], set()
    while pending:
        node = pending.pop()
        if node is None or id(node) in visited:  # an alias refers to a node that may hold it
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            stated = set()
            for key, value in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else id(key)
                if name in stated:
                    raise yaml.MarkedYAMLError(problem=f"{name} is stated twice", problem_mark=key.start_mark)
                stated.add(name)
                pending.append(value)
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value


def check_names(section: type[BaseModel], values: Mapping[Any, Any]) -> tuple[list[str], dict[str, str]]:
    """Returns the misspelt fields, and the fields without effect."""
    mistakes, without_effect = [], {}
    for place, name, field, known in walk(section, values):
        if field is None and (hint := suggestion(name, known)):
            mistakes.append(f"{place} is not a field{hint}")
        elif field is None:
            without_effect[place] = "Heddle does not know this field"
        for marker in field.metadata if field else ():
            if isinstance(marker, NoEffect):
                without_effect[place] = marker.reason
    return mistakes, without_effect


def walk(
    section: type[BaseModel], values: Mapping[Any, Any], parent: str = ""
) -> Iterator[tuple[str, str, FieldInfo | None, Mapping[str, FieldInfo]]]:
    """The path and the name of each field that is stated, what the schema says of it, and its section's fields."""
    known = {name: field for field_name, field in section.model_fields.items() for name in spellings(field_name, field)}
    for name, value in values.items():
        field = known.get(str(name))
        place = f"{parent}{name}"
        yield place, str(name), field, known
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, Mapping):
            yield from walk(inner, value, f"{place}.")


def spellings(name: str, field: FieldInfo) -> list[str]:
    aliases = getattr(field.validation_alias, "choices", [name])
    return [str(alias) for alias in aliases]


def describe_error(error: ErrorDetails) -> str:
    place, value, kind = ".".join(map(str, error["loc"])), error["input"], error["type"]
    limits = error.get("ctx", {})
    if kind == "missing":
        return f"{place} is required"
    if kind == "value_error":  # of a validator in the schema, whose message is complete
        return f"{place} {limits['error']}"
    if kind not in REQUIREMENTS:
        return f"{place}: {error['msg']}"
    requirement = REQUIREMENTS[kind].format_map(limits).replace("'", "")
    if error["loc"][0] in SECRET_FIELDS:
        return f"{place} must be {requirement}"
    return f"{place} must be {requirement}, not {shown(value)}"


def shown(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value) if not value or value.strip() != value or value.isdecimal() else value
    if isinstance(value, int | float):
        return str(value)
    return "a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else str(value)
