"""The effective settings of a process as a table: name, value, and where each comes from. Secrets are masked.

Each `__main__` logs one when it starts, and `heddle serve` prints one for all services.
"""

import dataclasses
import enum
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heddle.telemetry.logs import TABLE_FIELD

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DEFAULT = "default"
MASK = "***"
VALUE_CHARACTERS_MAX = 200

# A setting or a variable whose name ends in one of these words is a secret, unless it is the path of a file.
SECRET_WORDS = frozenset({"key", "keys", "secret", "secrets", "token", "password", "headers"})
# Names that end so but are none.
NO_SECRETS = frozenset({"end_token"})

# In an address: a user with a password, and a query, which may be a signature.
USER = re.compile(r"(?<=://)[^/@\s,]+(?=@)")
QUERY = re.compile(r"(?<=\?)[^\s,]+")

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    name: str
    value: str
    origin: str  # a flag, a variable, a file, or DEFAULT


def log_settings(settings: "DataclassInstance", origins: Mapping[str, str]) -> None:
    """Logs those settings that are stated, or at debug level all. `origins` are those of `heddle.rpc.settings.load`."""
    rows = list_rows(settings, origins)
    if not log.isEnabledFor(logging.DEBUG):
        rows = [row for row in rows if row.origin != DEFAULT]
    log.info("settings%s", "" if rows else ": all have their defaults", extra={TABLE_FIELD: to_table(rows)})


def to_table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """For a log line, and for `heddle.telemetry.logs.align`."""
    return [{"name": row.name, "value": row.value, "from": row.origin} for row in rows]


def list_rows(settings: "DataclassInstance", origins: Mapping[str, str]) -> list[Row]:
    fields = [field for field in dataclasses.fields(settings) if field.init]
    return [make_row(field.name, getattr(settings, field.name), origins.get(field.name, DEFAULT)) for field in fields]


def list_variables(environ: Mapping[str, str], prefixes: Mapping[str, str], origin_of: Mapping[str, str]) -> list[Row]:
    """The variables that are set and begin with a prefix, each of which has a name. The origin of a variable is itself,
    if `origin_of` does not say otherwise."""
    return [
        dataclasses.replace(
            make_row(variable.removeprefix(prefix).lower(), value, origin_of.get(variable, variable)),
            name=f"{name} {variable.removeprefix(prefix).lower()}".strip(),
        )
        for prefix, name in prefixes.items()
        for variable, value in sorted(environ.items())
        if value and variable.startswith(prefix)
    ]


def make_row(name: str, value: Any, origin: str) -> Row:
    return Row(name, MASK if value and is_secret(name, value) else write_value(value), origin)


def is_secret(name: str, value: Any) -> bool:
    """Texts of such a name."""
    values = value if isinstance(value, tuple) else (value,)
    is_text = all(isinstance(one, str) for one in values)
    return is_text and name not in NO_SECRETS and name.rpartition("_")[2] in SECRET_WORDS


def write_value(value: Any) -> str:
    if isinstance(value, tuple):
        text = ",".join(map(write_value, value))
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = str(value.value if isinstance(value, enum.Enum) else value)
    if value is None or text == "":
        return "none"
    text = text if isinstance(value, Path) else QUERY.sub(MASK, USER.sub(MASK, text)) if "://" in text else text
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}..."
