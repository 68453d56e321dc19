"""How long `heddle serve` takes from the start of its process to the first answer, phase by phase.

    python -m tests.bench.bench_start --quick
    python -m tests.bench.bench_start --tree ../before --tree . --rounds 7 --model /models/qwen3-600m

Each turn starts `heddle serve` with an embedding model, asks for one embedding as soon as the port accepts connections,
and stops it. Several trees (checkouts) take turns, after one start of each that only fills the page cache. CPU time is
that of all processes until the first answer: where others load the machine, it says more than seconds.
"""

import argparse
import contextlib
import http.client
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.bench.servers import MODEL, START_S_MAX, Running, heddle
from tests.bench.start_times import CPU, FIRST_ANSWER, Start, comparison, read_log

ROOT = Path(__file__).parents[2]
ASK_EVERY_S = 0.005


def main() -> None:
    options = parsed_options()
    trees = {tree.resolve().name: tree.resolve() for tree in options.tree or [ROOT]}
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores\n", flush=True)
    starts: dict[str, list[Start]] = {name: [] for name in trees}
    for turn in range(options.rounds + 1):
        for name in list(trees) if turn % 2 else list(trees)[::-1]:
            start = measure_start(name, trees[name], options.model)
            told = f"{name}: {start[FIRST_ANSWER]:.2f} s, {start[CPU]:.2f} s of CPU time"
            print(f"round {turn} of {options.rounds}, {told}", file=sys.stderr, flush=True)
            if turn:
                starts[name].append(start)
    print(*comparison(starts), sep="\n")


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tree", type=Path, action="append", help="a checkout; may be repeated (this one)")
    parser.add_argument("--model", default=MODEL, help="an embedding model: a hub name or a folder (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--rounds", type=int, help="starts of each tree (5)")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    names = [tree.resolve().name for tree in options.tree or []]
    if len(set(names)) < len(names):
        parser.error("two trees have the same name")
    return options


def measure_start(name: str, tree: Path, model: str) -> Start:
    server = heddle("--log-level", "info", name=name, model=model)
    path = os.pathsep.join((str(tree), str(tree / "protos")))
    clock, began = time.time(), time.monotonic()
    running = Running(replace(server, folder=tree, environment={"PYTHONPATH": path}))
    try:
        ask(running, model)
        rows: dict[str, float] = {FIRST_ANSWER: time.monotonic() - began, CPU: sum(running.cpu_seconds().values())}
    finally:
        running.stop()
    local = time.localtime(clock)
    second_of_day = 3600 * local.tm_hour + 60 * local.tm_min + local.tm_sec + clock % 1
    return {**read_log(Path(running.log.name).read_text().splitlines(), second_of_day), **rows}


def ask(running: Running, model: str) -> None:
    """Returns when a request for an embedding has been answered. Raises RuntimeError if the server ends before."""
    body = json.dumps({"model": model, "input": "Hello, loom"})
    end = time.monotonic() + START_S_MAX
    while time.monotonic() < end:
        if running.process.poll() is not None:
            raise RuntimeError(f"{running.server.name} ended: {Path(running.log.name).read_text().strip()}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            if answers(running.port, body):
                return
        time.sleep(ASK_EVERY_S)
    raise TimeoutError(f"{running.server.name} did not answer in {START_S_MAX} s")


def answers(port: int, body: str, headers: Mapping[str, str] = {"Content-Type": "application/json"}) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S_MAX)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/embeddings", body, dict(headers))
        response = connection.getresponse()
        response.read()
        return response.status == http.HTTPStatus.OK


if __name__ == "__main__":
    main()
