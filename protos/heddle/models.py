"""`heddle models`: which models can be served. Called by heddle.cli."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from heddle.rpc.settings import EXIT_MISCONFIGURED

# Made of the parity tests, and the same as in the README.
TABLE = Path(__file__).with_name("models.md")

HELP = """usage: heddle models

Prints the model architectures that the engine runs: checkpoints that have them, and how many variations of each are
compared with their reference implementation, by task. `heddle serve --model` takes any checkpoint of these, a folder or
a name on the hub."""


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Returns the exit code."""
    if argv in (["-h"], ["--help"]):
        print(HELP)
        return 0
    if argv:
        print(f"heddle models: unknown argument {argv[0]} (see heddle models --help)", file=sys.stderr)
        return EXIT_MISCONFIGURED
    print(TABLE.read_text(encoding="utf-8"), end="")
    return 0
