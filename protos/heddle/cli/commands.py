"""The commands `engine-svc`, `tokenizer-svc` and `http-gateway`.

`pip install heddle` installs the commands but not the libraries that the services need. A command whose extra is
missing says so in one line.
"""

import importlib
import importlib.util
import sys
from collections.abc import Collection
from typing import NoReturn

from heddle.cli.closed_output import exit_if_output_closed
from heddle.rpc.settings import EXIT_MISCONFIGURED

# A library that only this extra installs.
LIBRARY_OF_EXTRA = {"tokenizer": "tokenizers", "gateway": "msgspec", "engine": "safetensors"}


def missing_extras(extras: Collection[str]) -> list[str]:
    return [extra for extra in extras if importlib.util.find_spec(LIBRARY_OF_EXTRA[extra]) is None]


def engine() -> NoReturn:
    run("engine-svc", "engine_svc", "engine")


def tokenizer() -> NoReturn:
    run("tokenizer-svc", "tokenizer_svc", "tokenizer")


def gateway() -> NoReturn:
    run("http-gateway", "http_gateway", "gateway")


def run(command: str, package: str, extra: str) -> NoReturn:
    if missing_extras([extra]):
        print(f"{command}: its libraries are not installed: pip install 'heddle[{extra}]'", file=sys.stderr)
        raise SystemExit(EXIT_MISCONFIGURED)
    with exit_if_output_closed():
        importlib.import_module(f"{package}.__main__").main()
    raise AssertionError(f"{command} returned")
