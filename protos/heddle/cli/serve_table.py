"""The table of settings that `heddle serve` prints when it starts: those that differ from the defaults, of the command
and its services."""

from collections.abc import Mapping

from heddle.cli.serve_settings import ServeSettings
from heddle.rpc.settings_table import DEFAULT, list_rows, list_variables, to_table

CONFIG_FILE = "config file"

# Prefixes of variables other than those of ServeSettings, and the first word of their rows.
PREFIXES = {
    "HEDDLE_ENGINE_": "engine",
    "HEDDLE_TOKENIZER_": "tokenizer",
    "HEDDLE_GATEWAY_": "gateway",
    "HEDDLE_BUILD_": "build",
    "HEDDLE_WEB_": "web",
}


def list_stated(
    settings: ServeSettings, origins: Mapping[str, str], environ: Mapping[str, str], given: Mapping[str, str]
) -> list[dict[str, str]]:
    """Rows; none if all settings have their defaults. What `environ` has beyond the `given` environment is from the
    config file."""
    of_file = {name: CONFIG_FILE for name, value in environ.items() if given.get(name) != value}
    origins = {name: of_file.get(origin, origin) for name, origin in origins.items()}
    rows = [row for row in list_rows(settings, origins) if row.origin != DEFAULT]
    rows += list_variables(environ, PREFIXES, of_file)
    return to_table(rows)
