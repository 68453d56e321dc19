"""The `heddle` command. Runs the subcommand, which reads its own settings. Called by heddle.__main__."""

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from heddle.rpc.settings import EXIT_MISCONFIGURED, suggestion

Command = Callable[[Sequence[str], Mapping[str, str]], int]

# Made from the parity tests by `make models`.
MODELS = Path(__file__).with_name("models.md")

USAGE = """usage: heddle COMMAND [options]

Serves embedding, reranking, classification and NER models over HTTP and gRPC.

commands:
  serve        run all services on this machine
  build        convert a model into a folder that starts fast, and quantize it
  config       check a Truss config.yaml, or print its JSON schema
  models       list the supported model architectures
  plan         estimate how many pods a load needs
  top          show the load of running services

options:
  -h, --help   show this text; `heddle COMMAND --help` shows the options of a command
  --version    show the version"""

MODELS_HELP = """usage: heddle models

Lists the supported model architectures. For each it names known checkpoints and counts, by task, the variations that
are tested against their reference implementation. `heddle serve --model` accepts any checkpoint of these architectures,
as a folder or a name on the Hugging Face Hub."""


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Returns the exit code."""
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else EXIT_MISCONFIGURED
    if name == "--version":
        import importlib.metadata

        print(f"heddle {importlib.metadata.version('heddle')}")
        return 0
    if name not in COMMANDS:
        print(f"heddle: unknown command {name}{suggestion(name, COMMANDS)} (see heddle --help)", file=sys.stderr)
        return EXIT_MISCONFIGURED
    try:
        return COMMANDS[name](argv[1:], environ)
    except KeyboardInterrupt:
        return 130


def serve(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    try:
        from heddle.cli import serve as command
    except ModuleNotFoundError as error:
        print(f"heddle: serve needs {error.name}: pip install 'heddle[local]'", file=sys.stderr)
        return EXIT_MISCONFIGURED
    return command.main(argv, environ)


def build(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    from heddle.cli import build_command as command

    return command.main(argv, environ)


def models(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    if argv in (["-h"], ["--help"]):
        print(MODELS_HELP)
        return 0
    if argv:
        print(f"heddle models: unknown argument {argv[0]} (see heddle models --help)", file=sys.stderr)
        return EXIT_MISCONFIGURED
    print(MODELS.read_text(encoding="utf-8"), end="")
    return 0


def config(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    try:
        from heddle.cli import config_command as command

        return command.main(argv, environ)
    except ModuleNotFoundError as error:
        print(f"heddle: config needs {error.name}; pip install 'heddle[local]'", file=sys.stderr)
        return EXIT_MISCONFIGURED


def plan(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    from heddle.cli import plan as command

    return command.main(argv, environ)


def top(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    if missing := [name for name in ("rich", "prometheus_client") if not importlib.util.find_spec(name)]:
        print(f"heddle: top needs {' and '.join(missing)}: pip install 'heddle[local]'", file=sys.stderr)
        return EXIT_MISCONFIGURED
    from heddle.cli import top as command

    return command.main(argv, environ)


COMMANDS: dict[str, Command] = {
    "serve": serve,
    "build": build,
    "config": config,
    "models": models,
    "plan": plan,
    "top": top,
}
