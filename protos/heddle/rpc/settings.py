"""Reads the settings of a process into a frozen dataclass: from flags, else environment variables, else defaults.

Called by each `__main__`:

    settings = load(EngineSettings, sys.argv[1:], os.environ, prog="engine-svc", env_prefix="HEDDLE_ENGINE_")

reads the field `batch_tokens_max: int = 16_384` from the flag `--batch-tokens-max` or the variable
`HEDDLE_ENGINE_BATCH_TOKENS_MAX`. `--help` prints the class's docstring and the `#` comment above each field. A comment
with an empty line below it is the heading of the fields that follow. `__post_init__` validates and raises ValueError.
A field is a str, int, float, bool, Path, Enum or Literal, one of them or None, or a tuple of any number of them.

An unknown or invalid setting ends the process with one line on stderr and exit code 2.
"""

import argparse
import dataclasses
import difflib
import enum
import inspect
import math
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from heddle.rpc.settings_source import read_documentation

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")

EXIT_MISCONFIGURED = 2
BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

# For a Service `heddle-engine`, Kubernetes sets HEDDLE_ENGINE_PORT=tcp://... and similar variables in all pods.
KUBERNETES_LINK = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)=.*|\w+_PORT=\w+://.*"
)


class ConfigurationError(Exception):
    """The operator's mistake, explained in one line. The process exits with code 2; restarting it would not help."""


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One field, with its flag and its environment variable."""

    name: str
    hint: Any
    default: Any  # dataclasses.MISSING if there is none
    env: str
    help: str
    heading: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def load(
    cls: type[S],
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    prog: str,
    env_prefix: str,
    origins: dict[str, str] | None = None,
) -> S:
    """Fills `cls` from flags and environment variables. An empty variable counts as unset. Ends the process after
    `--help` with exit code 0, and after a mistake with one line and exit code 2. Adds to `origins` the flag or the
    variable of each field that has one."""
    try:
        return resolve(cls, argv, environ, prog=prog, env_prefix=env_prefix, origins=origins)
    except ConfigurationError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_MISCONFIGURED) from None


def resolve(
    cls: type[S],
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    prog: str,
    env_prefix: str,
    origins: dict[str, str] | None = None,
) -> S:
    """Like `load`, but raises ConfigurationError for a mistake."""
    settings = list_settings(cls, env_prefix)
    flags = parse_flags(settings, argv, prog, cls.__doc__ or "")
    variables = {name: value for name, value in environ.items() if name.startswith(env_prefix)}
    variables = {name: value for name, value in variables.items() if not KUBERNETES_LINK.fullmatch(f"{name}={value}")}
    refuse_unknown([setting.env for setting in settings], variables)
    values: dict[str, Any] = {}
    origins = {} if origins is None else origins
    for setting in settings:
        if setting.name in flags:
            origins[setting.name], stated = setting.flag, flags[setting.name]
        elif variables.get(setting.env):
            origins[setting.name], stated = setting.env, variables[setting.env]
        elif setting.default is dataclasses.MISSING:
            raise ConfigurationError(f"{setting.flag} is required (or {setting.env})")
        else:
            continue
        values[setting.name] = parse_setting(setting, stated, origins[setting.name])
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def at_least(minimum: float, **values: float | None) -> None:
    """Raises ValueError that names the first value below the minimum. None passes. Called by `__post_init__`."""
    for name, value in values.items():
        if value is not None and value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, not {value}")


def list_settings(cls: type[S], env_prefix: str) -> list[Setting]:
    hints, documentation = get_type_hints(cls), read_documentation(cls)
    return [
        Setting(
            name=field.name,
            hint=hints[field.name],
            default=field.default if field.default_factory is dataclasses.MISSING else field.default_factory(),
            env=env_prefix + field.name.upper(),
            help=documentation[field.name].help if field.name in documentation else "",
            heading=documentation[field.name].heading if field.name in documentation else "",
        )
        for field in dataclasses.fields(cls)
        if field.init
    ]


def parse_setting(setting: Setting, stated: str | bool | list[str], source: str) -> Any:
    if isinstance(stated, bool):
        return stated
    text = stated if isinstance(stated, str) else ",".join(stated)
    try:
        return parse_value(text, setting.hint)
    except ValueError as error:
        raise ConfigurationError(f"{source}: {error}") from None


def parse_value(text: str, hint: Any) -> Any:
    """Converts a text to the type `hint`. Raises ValueError that quotes the text."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return None if text.lower() == "none" else parse_value(text, inner)
    if origin is tuple:
        return tuple(parse_value(part.strip(), arguments[0]) for part in text.split(",") if part.strip())
    if choices := find_choices(hint):
        if text not in choices:
            raise ValueError(f"{text!r} is not one of {', '.join(choices)}{suggestion(text, choices)}")
        return choices[text]
    return PARSERS[hint](text)


def find_choices(hint: Any) -> dict[str, Any]:
    """Returns the values of a Literal or an Enum by their texts; empty for other types."""
    if get_origin(hint) is Literal:
        return {str(value): value for value in get_args(hint)}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {str(member.value): member for member in hint}
    return {}


def parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def parse_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    return value


def parse_bool(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError(f"{text!r} is neither true nor false")
    return BOOLEANS[text.lower()]


def parse_path(text: str) -> Path:
    return Path(text).expanduser()


PARSERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: parse_int,
    float: parse_float,
    bool: parse_bool,
    Path: parse_path,
}
METAVARS = {str: "TEXT", int: "N", float: "X", Path: "PATH"}


class HelpFormatter(argparse.HelpFormatter):
    """Does not wrap the indented paragraphs of a description, which are examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = []
        for paragraph in inspect.cleandoc(text).split("\n\n"):
            is_example = paragraph.startswith("    ")
            paragraphs.append(paragraph if is_example else super()._fill_text(paragraph, width, indent))
        return "\n\n".join(paragraphs)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(message.removeprefix("argument "))


def parse_flags(settings: Sequence[Setting], argv: Sequence[str], prog: str, description: str) -> dict[str, Any]:
    """Returns the values of the given flags by field name. Raises ConfigurationError for an unknown flag."""
    parser = Parser(
        prog=prog,
        usage="%(prog)s [options]",
        description=description,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    headings = list(dict.fromkeys(setting.heading for setting in settings))
    groups = {heading: parser.add_argument_group(heading or "settings") for heading in headings}
    for setting in settings:
        add_flag(groups[setting.heading], setting)
    stated, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].split("=")[0]
        if not name.startswith("-"):
            raise ConfigurationError(f"unexpected argument {name}")
        raise ConfigurationError(f"unknown flag {name}{suggestion(name, [setting.flag for setting in settings])}")
    return vars(stated)


def add_flag(group: argparse._ArgumentGroup, setting: Setting) -> None:
    text = f"{setting.help} [{describe_default(setting)}; {setting.env}]".strip().replace("%", "%%")
    common: dict[str, Any] = {"dest": setting.name, "default": argparse.SUPPRESS, "help": text}
    hint = setting.hint
    if hint is bool:
        group.add_argument(setting.flag, action=argparse.BooleanOptionalAction, **common)
    elif get_origin(hint) is tuple:
        group.add_argument(setting.flag, action="append", metavar=metavar(get_args(hint)[0]) + ",...", **common)
    else:
        group.add_argument(setting.flag, metavar=metavar(hint), **common)


def metavar(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(argument for argument in get_args(hint) if argument is not types.NoneType)
    choices = find_choices(hint)
    return "{" + ",".join(choices) + "}" if choices else METAVARS[hint]


def describe_default(setting: Setting) -> str:
    default = setting.default
    if default is dataclasses.MISSING:
        return "required"
    if isinstance(default, tuple):
        default = ",".join(str(item) for item in default)
    if isinstance(default, enum.Enum):
        default = default.value
    if isinstance(default, bool):
        default = str(default).lower()
    return f"default: {'none' if default is None or default == '' else default}"


def refuse_unknown(known: Iterable[str], variables: Iterable[str]) -> None:
    for name in sorted(set(variables).difference(known)):
        raise ConfigurationError(f"unknown environment variable {name}{suggestion(name, known)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    by_lower_case = {one.lower(): one for one in known}
    # A lower cutoff proposes V100 for h100.
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.8)
    return f"; did you mean {by_lower_case[nearest[0]]}?" if nearest else ""
