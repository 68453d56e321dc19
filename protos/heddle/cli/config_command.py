"""`heddle config check` and `heddle config schema`, and the config file of `heddle serve`.

A flag overrides a variable of the environment, which overrides the file, which overrides the defaults.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from heddle.cli.build_settings import BuildSettings
from heddle.cli.serve_settings import ServeSettings, add_model_name
from heddle.machine import visible_gpus
from heddle.rpc.settings import EXIT_MISCONFIGURED, ConfigurationError, resolve, suggestion

if TYPE_CHECKING:
    from heddle.config.loading import LoadedConfig

T = TypeVar("T")

# Flags that take no value.
SWITCHES = {
    f"--{no}{field.name.replace('_', '-')}"
    for field in (*fields(ServeSettings), *fields(BuildSettings))
    if field.type is bool
    for no in ("", "no-")
}

# What each takes, for an error.
ACTIONS = {"check": "check takes the path of a config.yaml", "schema": "schema takes no arguments"}

SERVE_PREFIX = "HEDDLE_SERVE_"
MODEL_VARIABLE = "HEDDLE_SERVE_MODEL"
DEVICE_VARIABLE = "HEDDLE_ENGINE_DEVICE"

USAGE = """usage: heddle config check CONFIG [serve options]
       heddle config schema

check    says what `heddle serve CONFIG` would run on this machine, and why. CONFIG is a Truss config.yaml, or the
         folder that holds one. Ends with exit code 2 and one line for each mistake,
         and for what would not start here.
schema   prints the JSON schema of the file, for editors."""


@dataclass(frozen=True, slots=True)
class ConfiguredServe:
    """A config file, and what comes of it together with flags and environment."""

    loaded: "LoadedConfig"
    settings: ServeSettings
    environ: Mapping[str, str]  # of `heddle serve` and its services
    gpus: int  # that the engines may compute on
    secret_places: Mapping[str, str]  # for heddle.remote.errors


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
    from heddle.cli.config_check import explain, find_obstacle, resolve_services
    from heddle.config.loading import ConfigFileError

    configured = configure_serve(path, flags, environ)
    services = resolve_naming_file(resolve_services, configured.environ, environ, configured.loaded.path)
    print(explain(configured, services), flush=True)
    if obstacle := find_obstacle(configured):
        raise ConfigFileError(configured.loaded.path, [f"heddle serve would not start here: {obstacle}"])


def configure_serve(path: Path, flags: Sequence[str], environ: Mapping[str, str]) -> ConfiguredServe:
    """Raises ConfigurationError."""
    from heddle.config.credentials import MissingSecretError, find_credentials, find_secret_places
    from heddle.config.loading import ConfigFileError, load_config
    from heddle.config.rules import REPOSITORY
    from heddle.config.translation import translate

    loaded = load_config(path)

    def combine(gpus: int) -> tuple[ServeSettings, dict[str, str]]:
        variables = translate(loaded.config, loaded.path.parent.absolute(), gpus=gpus)
        combined = variables | {name: text for name, text in environ.items() if text or name not in variables}
        return resolve_naming_file(resolve_serve, combined, environ, loaded.path), combined

    def resolve_serve(variables: Mapping[str, str]) -> ServeSettings:
        return resolve(ServeSettings, flags, variables, prog="heddle serve", env_prefix=SERVE_PREFIX)

    settings, combined = combine(gpus=0)
    device = combined.get(DEVICE_VARIABLE) if settings.device == "auto" else settings.device
    gpus = 0 if device == "cpu" or settings.engine == "simulated" else len(visible_gpus(environ))
    if gpus and device not in (None, "", "auto"):
        gpus = 1
    settings, combined = combine(gpus)
    source = loaded.config.trt_llm.build.checkpoint_repository.source
    if source == "LOCAL" and settings.model == combined.get(MODEL_VARIABLE) and not environ.get(MODEL_VARIABLE):
        folder = Path(os.path.normpath(settings.model))
        if not Path(settings.model).is_dir():
            mistake = f"{REPOSITORY}.repo must be a folder, and there is none at {folder}"
            raise ConfigFileError(loaded.path, [mistake])
        combined = add_model_name(combined, folder.name)
    places = find_secret_places(loaded.config, combined)
    try:
        combined |= find_credentials(loaded.config, combined)
    except MissingSecretError as error:  # no error: the model may be public or already on this machine
        without_effect = {**loaded.without_effect, f"{REPOSITORY}.runtime_secret_name": str(error)}
        loaded = replace(loaded, without_effect=without_effect)
    return ConfiguredServe(loaded, settings, combined, gpus, places)


def resolve_naming_file(
    resolve_from: Callable[[Mapping[str, str]], T], combined: Mapping[str, str], environ: Mapping[str, str], path: Path
) -> T:
    """Resolves settings from `combined`. A mistake that `environ` alone does not make is the file's, and names it."""
    from heddle.config.loading import ConfigFileError

    try:
        return resolve_from(combined)
    except ConfigurationError as error:
        resolve_from(environ)
        raise ConfigFileError(path, [str(error)]) from None


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
    set_credentials(configured)
    return flags, configured.environ


def set_credentials(configured: ConfiguredServe) -> None:
    """Sets the variables that the libraries of the model sources read, for this process and its children. Errors then
    name the secret."""
    from heddle.config.credentials import VARIABLES
    from heddle.remote.errors import SECRET_PLACES

    SECRET_PLACES.set(configured.secret_places)
    os.environ.update({name: configured.environ[name] for name in VARIABLES if configured.environ.get(name)})


def split_config_file(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Finds the config file or its folder: the first argument that is neither a flag nor a flag's value. No flag takes
    a value that ends in .yaml."""
    for index, word in enumerate(argv):
        before = argv[index - 1] if index else ""
        may_be_value = before.startswith("-") and "=" not in before and before not in SWITCHES
        if not word.startswith("-") and (not may_be_value or word.endswith((".yaml", ".yml"))):
            return Path(word), [*argv[:index], *argv[index + 1 :]]
    return None, list(argv)


def print_mistakes(error: ConfigurationError, program: str) -> None:
    for line in str(error).splitlines():
        print(f"{program}: {line}", file=sys.stderr)
