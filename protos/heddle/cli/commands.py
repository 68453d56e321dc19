"""The commands of the three services. A plain `pip install .` brings the commands too, and not what the services need:
a command whose extra is missing says so in one line."""

import importlib
import importlib.util
import sys
from collections.abc import Collection
from typing import NoReturn

from heddle.rpc.settings import EXIT_MISCONFIGURED

# One library that only the extra of each service brings.
LIBRARY_OF_EXTRA = {"tokenizer": "tokenizers", "gateway": "msgspec", "engine": "safetensors"}


def missing(extras: Collection[str]) -> list[str]:
    """Those that are not installed."""
    return [extra for extra in extras if importlib.util.find_spec(LIBRARY_OF_EXTRA[extra]) is None]


def engine() -> NoReturn:
    run("engine-svc", "engine_svc", "engine")


def tokenizer() -> NoReturn:
    run("tokenizer-svc", "tokenizer_svc", "tokenizer")


def gateway() -> NoReturn:
    run("http-gateway", "http_gateway", "gateway")


def run(command: str, package: str, extra: str) -> NoReturn:
    if missing([extra]):
        print(f"{command}: not installed: what it needs; pip install 'heddle[{extra}]'", file=sys.stderr)
        raise SystemExit(EXIT_MISCONFIGURED)
    importlib.import_module(f"{package}.__main__").main()
    raise AssertionError(f"{command} has returned")
