"""Loads a `config.yaml`: YAML, then the schema, then BEI's rules. Reports all mistakes at once, one line each.

Unknown fields are accepted, as Truss does, unless they look like a misspelt known field.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from heddle.config.rules import BUILD, QUANTIZATIONS, REPOSITORY, find_broken_rules
from heddle.config.schema import NoEffect, TrussConfig
from heddle.config.translation import TEI_WITHOUT_EFFECT, is_setting
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
    "string_too_short": "text that is not empty",
    "string_type": "text",
}

# Error messages do not repeat their values.
SECRET_FIELDS = ("environment_variables", "secrets")


class ConfigFileError(ConfigurationError):
    def __init__(self, path: Path, mistakes: list[str]) -> None:
        super().__init__("\n".join(f"{path}: {escape(mistake)}" for mistake in mistakes))


def escape(text: str) -> str:
    """Escapes line breaks and terminal codes, which names and values may hold."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    path: Path
    config: TrussConfig
    without_effect: Mapping[str, str]  # fields in the file that do nothing here -> reason


def load_config(path: Path) -> LoadedConfig:
    """`path` is the file, or the folder of a Truss. Raises ConfigFileError."""
    values = read_yaml(path := find_file(path))
    mistakes, without_effect = check_names(TrussConfig, values)
    try:
        config = TrussConfig.model_validate(values)
    except ValidationError as error:
        errors = error.errors()
        broken_rules = find_further_mistakes(values, errors)
        raise ConfigFileError(path, [*mistakes, *map(describe_error, errors), *broken_rules]) from None
    mistakes += find_broken_rules(config)
    if mistakes:
        raise ConfigFileError(path, mistakes)
    if config.resources.accelerator and config.resources.use_gpu is True:
        without_effect.pop("resources.use_gpu")  # the accelerator says the same
    foreign = [name for name in config.environment_variables if not is_setting(name)]
    without_effect |= {
        f"environment_variables.{name}": TEI_WITHOUT_EFFECT.get(name, "Heddle has no such setting") for name in foreign
    }
    return LoadedConfig(path, config, {escape(place): reason for place, reason in without_effect.items()})


def find_file(path: Path) -> Path:
    """Raises ConfigFileError for a path that looks like a model instead of a config."""
    file = path / "config.yaml" if path.is_dir() else path
    if file.exists():
        return file
    if (path / "config.json").exists():
        raise ConfigFileError(path, [f"is a model folder without a config.yaml: to serve it, use --model {path}"])
    if not path.exists() and not path.suffix:
        raise ConfigFileError(path, [f"there is no such file or folder: for a model of the hub, use --model {path}"])
    return file


def find_further_mistakes(values: Mapping[Any, Any], errors: list[ErrorDetails]) -> list[str]:
    """Returns the rules that the correct values break. Empty if a required value is wrong: the rest is no config."""
    remaining = deepcopy(values)
    for error in errors:
        remove_value(remaining, error["loc"])
    try:
        broken_rules = find_broken_rules(TrussConfig.model_validate(remaining))
    except ValidationError:
        return []
    places = {".".join(map(str, error["loc"])) for error in errors}
    is_source_known = not any(place.startswith(REPOSITORY) for place in places)
    return [line for line in broken_rules if is_source_known or not line.startswith(REPOSITORY)]


def remove_value(values: Any, place: tuple[str | int, ...]) -> None:
    *parents, name = place or (None,)
    for parent in parents:
        values = values[parent] if isinstance(values, Mapping) and parent in values else None
    if isinstance(values, dict):
        values.pop(name, None)


def read_yaml(path: Path) -> dict[Any, Any]:
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        document = loader.get_single_node()
        check_duplicates(document)
        values = loader.construct_document(document) if document else None
    except OSError as error:
        raise ConfigFileError(path, [error.strerror or str(error)]) from None
    except UnicodeDecodeError:
        raise ConfigFileError(path, ["is not UTF-8 text"]) from None
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
    """Raises MarkedYAMLError for a field that appears twice in a mapping. PyYAML would take the last one."""
    pending, visited = [document], set()
    while pending:
        node = pending.pop()
        if node is None or id(node) in visited:  # an alias, which may refer to a node that contains it
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            stated = set()
            for key, value in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else id(key)
                if name in stated:
                    raise yaml.MarkedYAMLError(problem=f"{name} appears twice", problem_mark=key.start_mark)
                stated.add(name)
                pending.append(value)
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value


def check_names(
    section: type[BaseModel], values: Mapping[Any, Any], parent: str = ""
) -> tuple[list[str], dict[str, str]]:
    """Returns a line for each misspelt field, and the fields without effect with the reason."""
    mistakes: list[str] = []
    without_effect: dict[str, str] = {}
    known = {name: field for field_name, field in section.model_fields.items() for name in spellings(field_name, field)}
    for name, value in values.items():
        place, field = f"{parent}{name}", known.get(str(name))
        if field is None and (hint := suggestion(str(name), known)):
            mistakes.append(f"{place} is not a field{hint}")
        elif field is None:
            without_effect[place] = "Heddle does not know this field"
        else:
            for marker in field.metadata:
                if isinstance(marker, NoEffect):
                    without_effect[place] = marker.reason
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, Mapping):
                inner_mistakes, inner_without_effect = check_names(inner, value, f"{place}.")
                mistakes += inner_mistakes
                without_effect |= inner_without_effect
    return mistakes, without_effect


def spellings(name: str, field: FieldInfo) -> list[str]:
    aliases = getattr(field.validation_alias, "choices", [name])
    return [str(alias) for alias in aliases]


def describe_error(error: ErrorDetails) -> str:
    place, value, kind = ".".join(map(str, error["loc"])), error["input"], error["type"]
    limits = error.get("ctx", {})
    if kind == "missing":
        return f"{place} is required"
    if place == f"{BUILD}.quantization_type":  # the schema knows more, for which there is an error of their own
        limits = {"expected": f"one of {', '.join(QUANTIZATIONS)}"}
    if kind == "value_error":  # raised by a validator in the schema; the message is complete
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
