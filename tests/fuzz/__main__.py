"""Fuzzes one target with inputs that reach new code, or all targets in turn. The targets are the tests of this folder.

    python -m tests.fuzz json_bodies --seconds 300
    python -m tests.fuzz all --seconds 2

A failure is printed with its traceback, and kept in `.hypothesis`: the target's test then fails with the smallest such
input that hypothesis finds. Needs atheris.
"""

import argparse
import contextlib
import importlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import atheris  # type: ignore[import-untyped]

MODULES = ("tests.fuzz.test_wire", "tests.fuzz.test_files", "tests.fuzz.test_requests")
PACKAGES = ["heddle", "http_gateway", "tokenizer_svc", "engine_svc"]
MEMORY_MB_MAX = 4096
HANG_S = 30


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs; 0: another one each time")
    arguments = parser.parse_args()
    targets = import_targets()
    if arguments.target != "all" and arguments.target not in targets:
        parser.error(f"there is no target {arguments.target}; one of all, {', '.join(targets)}")
    chosen = list(targets) if arguments.target == "all" else [arguments.target]
    failed = [name for name in chosen if not run_in_child(name, targets[name], arguments.seconds, arguments.seed)]
    print(f"{len(chosen) - len(failed)} of {len(chosen)} targets hold" + "".join(f"\n{name} fails" for name in failed))
    return bool(failed)


def import_targets() -> Mapping[str, Any]:
    with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=PACKAGES):
        modules = [importlib.import_module(name) for name in MODULES]
    tests = {name: test for module in modules for name, test in vars(module).items() if name.startswith("test_")}
    return {name.removeprefix("test_"): test for name, test in tests.items()}


def run_in_child(name: str, test: Any, seconds: int, seed: int) -> bool:
    """Returns whether the target held. libFuzzer ends the process in which it runs."""
    print(f"{name}: {seconds} s", flush=True)
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    logging.disable()
    prepare: Callable[[], None] = getattr(sys.modules[test.__module__], "prepare", lambda: None)
    prepare()
    limits = (
        f"-max_total_time={seconds}",
        f"-timeout={HANG_S}",
        f"-rss_limit_mb={MEMORY_MB_MAX}",
        "-max_len=16384",
        "-len_control=0",
    )
    kept = f"-artifact_prefix={tempfile.gettempdir()}/"
    atheris.Setup([name, *limits, kept, "-verbosity=0"], test.hypothesis.fuzz_one_input)
    atheris.Fuzz()
    return True


if __name__ == "__main__":
    sys.exit(main())
