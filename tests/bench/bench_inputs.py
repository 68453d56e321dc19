"""What each further input of a request costs the gateway, the tokenizer and the engine, without a model.

    python -m tests.bench.bench_inputs --quick
    python -m tests.bench.bench_inputs --tree ../before --tree . --rounds 5

`heddle serve` with the simulated engine, whose passes take no time, answers requests of 1 and of 1,024 inputs over two
connections: three words each, vectors in base64. The difference is the cost of a further input. `cpu` reads the CPU
time of each service from /proc; `calls` counts calls of Python functions and of C functions by sys.setprofile, with
servers of its own, as counting makes them slow. Several trees (checkouts) take turns; ratios are to the first one's.
"""

import argparse
import itertools
import json
import os
import random
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.input_costs import INPUTS, RATES, Round, Turn, comparison, dearest, figures
from tests.bench.load import Load, measure
from tests.bench.servers import MODEL, Running, simulated
from tests.bench.tables import TIERS
from tests.bench.texts import WORDS
from tests.processes import descendants, module_of

ROOT = Path(__file__).parents[2]
COUNTING = Path(__file__).parent / "call_counts"
PATH = "/v1/embeddings"
CONNECTIONS = 2
SINGLE_BODIES, LARGE_BODIES = 4096, 32
WARM_UP_S = 0.5
DRAIN_S_MAX = 60.0


@dataclass(frozen=True)
class Counts:
    """The counts of one service since its start."""

    calls: Counter[str]  # by function
    c_calls: int


def main() -> None:
    options = parsed_options()
    trees = {tree.resolve().name: tree.resolve() for tree in options.tree or [ROOT]}
    bodies = request_bodies(random.Random(0))
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores\n", flush=True)
    if options.only != "calls":
        rounds = cpu_rounds(trees, bodies, options.seconds, options.rounds)
        print(*comparison(rounds, [*figures("CPU µs"), *RATES]), "", sep="\n", flush=True)
    if options.only != "cpu":
        print_calls(trees, bodies, options.seconds, options.functions)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_inputs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tree", type=Path, action="append", help="a checkout; may be repeated (this one)")
    parser.add_argument("--only", choices=["cpu", "calls"], help="one of the two measurements")
    parser.add_argument("--quick", action="store_true", help="one round of turns of 2 s")
    parser.add_argument("--seconds", type=float, help="of a turn (5)")
    parser.add_argument("--rounds", type=int, help="turns of each tree with each size of request (5)")
    parser.add_argument("--functions", type=int, default=0, help="show so many functions with the most calls")
    options = parser.parse_args()
    options.seconds = options.seconds or (2.0 if options.quick else 5.0)
    options.rounds = options.rounds or (1 if options.quick else 5)
    names = [tree.resolve().name for tree in options.tree or []]
    if len(set(names)) < len(names):
        parser.error("two trees have the same name")
    return options


def request_bodies(rng: random.Random) -> dict[int, list[str]]:
    """Returns bodies by their number of inputs. No text is repeated within thousands, because equal texts of a batch
    are computed once."""
    words = list(itertools.permutations(sorted(set(WORDS)), 3))
    texts = [" ".join(some) for some in rng.sample(words, SINGLE_BODIES + LARGE_BODIES * INPUTS)]
    lists = [texts[start : start + INPUTS] for start in range(SINGLE_BODIES, len(texts), INPUTS)]
    single = [body_of(text) for text in texts[:SINGLE_BODIES]]
    return {1: single, INPUTS: [body_of(inputs) for inputs in lists]}


def body_of(inputs: str | list[str]) -> str:
    return json.dumps({"model": MODEL, "input": inputs, "encoding_format": "base64"})


@contextmanager
def serving(trees: Mapping[str, Path], **environment: str) -> Iterator[dict[str, Running]]:
    first = environment.pop("PYTHONPATH", None)
    with ExitStack() as stack:
        running = {}
        for name, tree in trees.items():
            server = simulated(name, engines=1, fixed_us=0, per_token_ns=0)
            path = os.pathsep.join(filter(None, (first, str(tree), str(tree / "protos"))))
            variables = {**server.environment, **environment, "PYTHONPATH": path}
            running[name] = Running(replace(server, folder=tree, environment=variables))
            stack.callback(running[name].stop)
        for one in running.values():
            one.wait_until_ready()
        yield running


def cpu_rounds(
    trees: Mapping[str, Path], bodies: Mapping[int, list[str]], seconds: float, rounds: int
) -> dict[str, list[Round]]:
    measured: dict[str, list[Round]] = {name: [] for name in trees}
    with serving(trees) as running:
        for turn in range(rounds):
            names = list(trees) if turn % 2 == 0 else list(trees)[::-1]
            turns = {
                (name, inputs): cpu_turn(running[name], inputs, those, seconds)
                for inputs, those in bodies.items()
                for name in names
            }
            for name in trees:
                measured[name].append(Round(turns[name, 1], turns[name, INPUTS]))
            print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    return measured


def cpu_turn(server: Running, inputs: int, bodies: list[str], seconds: float) -> Turn:
    """Measures all CPU time from the first request to the last answer."""
    before = server.cpu_seconds()
    turn = send(server, inputs, bodies, seconds)
    used = {name: 1e6 * (spent - before.get(name, 0.0)) for name, spent in server.cpu_seconds().items()}
    return replace(turn, cost=used)


def send(server: Running, inputs: int, bodies: list[str], seconds: float) -> Turn:
    """Sends the requests. The caller adds their cost."""
    load = Load(
        *(server.port, PATH, bodies, 0, [], seconds, WARM_UP_S),
        connections=CONNECTIONS,
        drain_s_max=DRAIN_S_MAX,
    )
    report = measure(load)
    if report.errors:
        raise RuntimeError(f"{server.server.name} refused {report.errors} requests")
    return Turn(report.answers_in_all, sum(report.answered) * inputs / report.seconds, {})


def print_calls(trees: Mapping[str, Path], bodies: Mapping[int, list[str]], seconds: float, functions: int) -> None:
    python: dict[str, list[Round]] = {}
    native: dict[str, list[Round]] = {}
    lists = []
    for name, tree in trees.items():
        turns, counts = counted_turns(name, tree, bodies, seconds)
        python[name] = [round_of(turns, {size: python_calls(those) for size, those in counts.items()})]
        native[name] = [round_of(turns, {size: c_calls(those) for size, those in counts.items()})]
        requests = turns[1].requests, turns[INPUTS].requests
        for service, short in TIERS.items():
            top = dearest(counts[1][service].calls, counts[INPUTS][service].calls, requests, functions)
            lists += [f"{name} {short}: {count:.2f} {function}" for function, count in top]
    print(*comparison(python, [*figures("calls")]), "", sep="\n")
    print(*comparison(native, [*figures("C calls")]), "", *lists, sep="\n", flush=True)


def counted_turns(
    name: str, tree: Path, bodies: Mapping[int, list[str]], seconds: float
) -> tuple[dict[int, Turn], dict[int, dict[str, Counts]]]:
    """Returns the turns by their number of inputs."""
    turns, counts = {}, {}
    with (
        tempfile.TemporaryDirectory() as folder,
        serving({name: tree}, PYTHONPATH=str(COUNTING), BENCH_CALL_COUNTS=folder) as running,
    ):
        server = running[name]
        for inputs, those in bodies.items():
            send(server, inputs, those, WARM_UP_S)
            before = counts_of(server, Path(folder))
            turns[inputs] = send(server, inputs, those, seconds)
            counts[inputs] = since(before, counts_of(server, Path(folder)))
    return turns, counts


def round_of(turns: Mapping[int, Turn], costs: Mapping[int, Mapping[str, float]]) -> Round:
    return Round(*(replace(turns[inputs], cost=costs[inputs]) for inputs in (1, INPUTS)))


def python_calls(counts: Mapping[str, Counts]) -> dict[str, float]:
    return {service: float(one.calls.total()) for service, one in counts.items()}


def c_calls(counts: Mapping[str, Counts]) -> dict[str, float]:
    return {service: float(one.c_calls) for service, one in counts.items()}


def counts_of(server: Running, folder: Path) -> dict[str, Counts]:
    return {
        module_of(pid): read_counts(folder / str(pid)) for pid in descendants(server.pid) if module_of(pid) in TIERS
    }


def read_counts(address: Path) -> Counts:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(address))
        with connection.makefile("rb") as content:
            counts = json.load(content)
    return Counts(Counter(counts["calls"]), counts["c_calls"])


def since(before: Mapping[str, Counts], now: Mapping[str, Counts]) -> dict[str, Counts]:
    return {
        service: Counts(one.calls - before[service].calls, one.c_calls - before[service].c_calls)
        for service, one in now.items()
    }


if __name__ == "__main__":
    main()
