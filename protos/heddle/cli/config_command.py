"""`heddle config check` and `heddle config schema`, and the config file of `heddle serve`.

A flag overrides a variable of the environment, which overrides the file, which overrides the defaults.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heddle.cli.serve_settings import ServeSettings
from heddle.machine import visible_gpus
from heddle.rpc.settings import EXIT_MISCONFIGURED, ConfigurationError, resolve, suggestion

if TYPE_CHECKING:
    from heddle.config.loading import LoadedConfig

# What each takes, for an error.
ACTIONS = {"check": "check takes the path of a config.yaml", "schema": "schema takes no arguments"}

SERVE_PREFIX = "HEDDLE_SERVE_"
DEVICE_VARIABLE = "HEDDLE_ENGINE_DEVICE"
HUB_TOKEN_VARIABLE = "HF_TOKEN"

USAGE = """usage: heddle config check CONFIG [serve options]
       heddle config schema

check    says what `heddle serve CONFIG` would run on this machine, and why. CONFIG is a Truss config.yaml, or the
         folder that holds one. Ends with exit code 2 and one line for each mistake.
schema   prints the JSON schema of the file, for editors."""


@dataclass(frozen=True, slots=True)
class ConfiguredServe:
    """A config file, and what comes of it together with flags and environment."""

    loaded: "LoadedConfig"
    settings: ServeSettings
    environ: Mapping[str, str]  # of `heddle serve` and its services
    gpus: int  # that the engines may compute on


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Returns the exit code."""
    if not argv or {"-h", "--help"}.intersection(argv):
        print(USAGE)
        return 0 if argv else EXIT_MISCONFIGURED
    action, *rest = argv
    if action == "schema" and not rest:
        print_schema()
        return 0
    path, flags = split_config_file(rest)
    if action != "check" or path is None:
        wrong = ACTIONS.get(action) or f"unknown command {action}{suggestion(action, ACTIONS)}"
        print(f"heddle config: {wrong} (see heddle config --help)", file=sys.stderr)
        return EXIT_MISCONFIGURED
    try:
        check(path, flags, environ)
    except ConfigurationError as error:
        print_mistakes(error, "heddle config")
        return EXIT_MISCONFIGURED
    return 0


def print_schema() -> None:
    from heddle.config.schema import TrussConfig

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TrussConfig.model_json_schema()}
    print(json.dumps(schema, indent=2))


def check(path: Path, flags: Sequence[str], environ: Mapping[str, str]) -> None:
    from heddle.cli.config_check import check_settings, explain

    configured = configure_serve(path, flags, environ)
    check_settings(configured.environ)
    print(explain(configured))


def configure_serve(path: Path, flags: Sequence[str], environ: Mapping[str, str]) -> ConfiguredServe:
    """Raises ConfigurationError."""
    from heddle.config.loading import load_config
    from heddle.config.translation import find_hub_token, translate

    loaded = load_config(path)

    def combine(gpus: int) -> tuple[ServeSettings, dict[str, str]]:
        variables = translate(loaded.config, loaded.path.parent.absolute(), gpus=gpus)
        combined = variables | {name: text for name, text in environ.items() if text or name not in variables}
        settings = resolve(ServeSettings, flags, combined, prog="heddle serve", env_prefix=SERVE_PREFIX)
        return settings, combined

    settings, combined = combine(gpus=0)
    device = combined.get(DEVICE_VARIABLE) if settings.device == "auto" else settings.device
    gpus = 0 if device == "cpu" or settings.engine == "simulated" else len(visible_gpus(environ))
    if gpus and device not in (None, "", "auto"):
        gpus = 1
    settings, combined = combine(gpus)
    is_from_hub = loaded.config.trt_llm.build.checkpoint_repository.source == "HF"
    if is_from_hub and not combined.get(HUB_TOKEN_VARIABLE) and (token := find_hub_token(loaded.config, environ)):
        combined[HUB_TOKEN_VARIABLE] = token
    return ConfiguredServe(loaded, settings, combined, gpus)


def apply_config_file(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[Sequence[str], Mapping[str, str]]:
    """Returns the flags, and the environment with what the config file among the arguments says, if there is one. Ends
    the process with exit code 2 and one line for each mistake."""
    path, flags = split_config_file(argv)
    if path is None:
        return argv, environ
    try:
        configured = configure_serve(path, flags, environ)
    except ModuleNotFoundError as error:
        print(f"heddle serve: a config file needs {error.name}; pip install 'heddle[local]'", file=sys.stderr)
        raise SystemExit(EXIT_MISCONFIGURED) from None
    except ConfigurationError as error:
        print_mistakes(error, "heddle serve")
        raise SystemExit(EXIT_MISCONFIGURED) from None
    loaded = configured.loaded
    if loaded.without_effect:
        print(f"heddle: {loaded.path}: without effect here: {', '.join(loaded.without_effect)}", file=sys.stderr)
    if token := configured.environ.get(HUB_TOKEN_VARIABLE):
        os.environ[HUB_TOKEN_VARIABLE] = token  # huggingface_hub takes it from there, in this process too
    return flags, configured.environ


def split_config_file(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The config file is the first argument, or any that ends in .yaml: no flag has such a value."""
    for index, word in enumerate(argv):
        if not word.startswith("-") and (index == 0 or word.endswith((".yaml", ".yml"))):
            return Path(word), [*argv[:index], *argv[index + 1 :]]
    return None, list(argv)


def print_mistakes(error: ConfigurationError, program: str) -> None:
    for line in str(error).splitlines():
        print(f"{program}: {line}", file=sys.stderr)
