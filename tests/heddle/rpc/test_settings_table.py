"""The table of effective settings says where each value comes from, and holds no secret."""

import dataclasses
import io
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from engine_svc.settings import EngineSettings
from heddle.cli.serve_settings import ServeSettings
from heddle.cli.serve_table import list_stated
from heddle.rpc.settings import resolve
from heddle.rpc.settings_table import DEFAULT, MASK, is_secret, list_rows, log_settings, make_row
from heddle.telemetry.logs import JsonFormatter, TextFormatter, align
from http_gateway.settings import GatewaySettings
from tokenizer_svc.settings import TokenizerSettings

SERVICES: dict[type[Any], str] = {
    EngineSettings: "HEDDLE_ENGINE_",
    TokenizerSettings: "HEDDLE_TOKENIZER_",
    GatewaySettings: "HEDDLE_GATEWAY_",
    ServeSettings: "HEDDLE_SERVE_",
}
SECRET = "correct-horse"


def resolve_gateway(*argv: str, **environ: str) -> tuple[GatewaySettings, dict[str, str]]:
    origins: dict[str, str] = {}
    settings = resolve(
        GatewaySettings, argv, environ, prog="gateway", env_prefix=SERVICES[GatewaySettings], origins=origins
    )
    return settings, origins


def logged(formatter: logging.Formatter, level: int, settings: GatewaySettings, origins: dict[str, str]) -> str:
    stream, log = io.StringIO(), logging.getLogger("heddle.rpc.settings_table")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    log.addHandler(handler)
    before = log.level
    log.setLevel(level)
    try:
        log_settings(settings, origins)
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
    return stream.getvalue()


def test_each_value_names_its_flag_or_variable_or_the_default() -> None:
    settings, origins = resolve_gateway("--port", "81", HEDDLE_GATEWAY_PORT="82", HEDDLE_GATEWAY_TIMEOUT_S="5")
    rows = {row.name: (row.value, row.origin) for row in list_rows(settings, origins)}
    assert rows["port"] == ("81", "--port")
    assert rows["timeout_s"] == ("5.0", "HEDDLE_GATEWAY_TIMEOUT_S")
    assert rows["host"] == ("127.0.0.1", DEFAULT)
    assert rows["tls_cert"] == ("none", DEFAULT)
    assert list(rows) == [field.name for field in dataclasses.fields(GatewaySettings)]


def test_info_shows_what_is_stated_and_debug_all() -> None:
    settings, origins = resolve_gateway("--port", "81", HEDDLE_GATEWAY_REQUESTS_MAX="7")
    text = logged(TextFormatter(), logging.INFO, settings, origins)
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["port", "81", "--port"],
        ["requests_max", "7", "HEDDLE_GATEWAY_REQUESTS_MAX"],
    ]
    assert len(logged(TextFormatter(), logging.DEBUG, settings, origins).splitlines()) == 1 + len(
        dataclasses.fields(GatewaySettings)
    )
    line = json.loads(logged(JsonFormatter("gateway"), logging.INFO, settings, origins))
    assert line["settings"][0] == {"name": "port", "value": "81", "from": "--port"}
    assert logged(TextFormatter(), logging.INFO, *resolve_gateway()).endswith("settings: all have their defaults\n")


def is_open_text(hint: Any) -> bool:
    """Whether a setting of this type can hold any text."""
    return hint in (str, tuple[str, ...]) or hint == str | None


@pytest.mark.parametrize("cls", SERVICES)
def test_all_settings_that_sound_secret_are_masked_but_known_ones(cls: type[Any]) -> None:
    """A new setting with such a word in its name must be looked at."""
    words = ("key", "secret", "token", "password", "credential", "auth", "webhook", "header")
    hints = get_type_hints(cls)
    names = {name for name, hint in hints.items() if is_open_text(hint) and any(word in name for word in words)}
    masked = {name for name in names if is_secret(name, SECRET)}
    assert masked == names & {"api_keys", "tokenizers_key", "engines_key"}
    assert names - masked <= {"score_tokens", "tokenizers", "tokenizers_tls_name"}


@pytest.mark.parametrize("cls", SERVICES)
def test_no_secret_is_in_the_table(cls: type[Any]) -> None:
    """Each text is set to an address with a password and a signature, and secrets to one that must not appear."""
    address = f"https://user:{SECRET}@host/path?sig={SECRET}&x=1"
    texts = {name for name, hint in get_type_hints(cls).items() if is_open_text(hint)}
    assert texts
    for name in texts:
        value: Any = SECRET if is_secret(name, SECRET) else address
        for each in (value, (value, value)):
            row = make_row(name, each, "--flag")
            assert SECRET not in row.value
            assert MASK in row.value
    assert make_row("model", address, "").value == f"https://{MASK}@host/path?{MASK}"


def test_files_of_secrets_are_named() -> None:
    assert make_row("api_keys_file", Path("/run/keys"), "").value == "/run/keys"
    assert make_row("tls_key", Path("/run/tls.key"), "").value == "/run/tls.key"


def test_a_value_cannot_forge_a_line() -> None:
    settings, origins = resolve_gateway("--default-route", "/x\n  port  0  --port")
    text = logged(TextFormatter(), logging.INFO, settings, origins)
    assert text.count("\n") == 2


def test_serve_shows_one_table_for_all_services_with_the_config_file() -> None:
    origins: dict[str, str] = {}
    given = {"HEDDLE_GATEWAY_API_KEYS": f"{SECRET},other", "HEDDLE_SERVE_DTYPE": "float32", "HF_TOKEN": SECRET}
    web = f'{{"https://host": {{"authorization": "{SECRET}"}}}}'
    environ = {**given, "HEDDLE_SERVE_ENGINE": "simulated", "HEDDLE_ENGINE_BATCH_ITEMS_MAX": "8"}
    environ["HEDDLE_WEB_HEADERS"] = web
    settings = resolve(
        ServeSettings, ["--engines", "2"], environ, prog="serve", env_prefix="HEDDLE_SERVE_", origins=origins
    )
    lines = align(list_stated(settings, origins, environ, given))
    assert [line.split(maxsplit=4) for line in lines] == [
        ["dtype", "float32", "HEDDLE_SERVE_DTYPE"],
        ["engine", "simulated", "config", "file"],
        ["engines", "2", "--engines"],
        ["engine", "batch_items_max", "8", "config", "file"],
        ["gateway", "api_keys", MASK, "HEDDLE_GATEWAY_API_KEYS"],
        ["web", "headers", MASK, "config", "file"],
    ]
    assert list_stated(ServeSettings(), {}, {}, {}) == []


def test_a_service_logs_its_settings_before_anything_else() -> None:
    """It then ends because it cannot listen."""
    flags = ("--log-format", "json", "--api-keys", SECRET, "--host", "host.invalid")
    command = (sys.executable, "-m", "http_gateway", *flags)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    first = json.loads(done.stderr.splitlines()[0])
    assert done.returncode == 2
    assert {"name": "api_keys", "value": MASK, "from": "--api-keys"} in first["settings"]
    assert SECRET not in done.stdout + done.stderr
