"""Runs seeds of the simulation on all cores, or one and prints its events.

    python -m tests.simulation --seeds 100000
    python -m tests.simulation --seed 7 --verbose

`python -m tests.simulation balancing` compares policies of balancing instead, see `balancing`.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation import balancing
from tests.simulation.world import Result, simulate

# Seeds that a process is given at a time.
CHUNK = 50
COMMAND = "python -m tests.simulation"


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("what", nargs="?", choices=("seeds", "balancing"), default="seeds")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--verbose", action="store_true", help="print all events of --seed")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--pods", type=int, default=1000, help="engine pods for balancing")
    arguments = parser.parse_args()
    if arguments.what == "balancing":
        return balancing.main(arguments.pods, arguments.jobs, show_progress)
    if arguments.seed is not None:
        return replay(arguments.seed, verbose=arguments.verbose)
    return run(range(arguments.first, arguments.first + arguments.seeds), arguments.jobs)


def replay(seed: int, *, verbose: bool) -> int:
    result = simulate(seed)
    if verbose:
        for at, kind, *details in result.events:
            print(f"{at:12.6f}  {kind:<12}", *details)
    print(report(result) or f"seed {seed} holds, digest {result.digest}: {counts(result.counts)}")
    return bool(result.violations)


def run(seeds: range, jobs: int) -> int:
    began = time.perf_counter()
    failed: list[Result] = []
    total: Counter[str] = Counter()
    for number, results in enumerate(run_chunks(seeds, jobs), 1):
        for result in results:
            total += result.counts
            if result.violations:
                failed.append(result)
                print(f"\r\033[K{report(result)}")
        show_progress(min(number * CHUNK, len(seeds)), len(seeds), began)
    took_s = time.perf_counter() - began
    print(f"{len(seeds)} seeds in {took_s:.0f} s, {len(failed)} with violations. {counts(total)}")
    return bool(failed)


def run_chunks(seeds: range, jobs: int) -> Iterator[list[Result]]:
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    if jobs == 1:
        yield from map(run_chunk, chunks)
        return
    with ProcessPoolExecutor(jobs) as processes:
        yield from processes.map(run_chunk, chunks)


def run_chunk(seeds: range) -> list[Result]:
    """Without the events: they are many, and a seed has them again."""
    return [Result(seed, result.violations, [], result.counts) for seed in seeds for result in (simulate(seed),)]


def show_progress(done: int, of: int, began: float) -> None:
    """One line on stderr, written anew each time; `began` is of time.perf_counter."""
    left_s = (time.perf_counter() - began) / done * (of - done)
    bar = "#" * (40 * done // of)
    end = "\n" if done == of else ""
    print(f"\r[{bar:<40}] {done} of {of}, {left_s:.0f} s left \033[K", file=sys.stderr, end=end, flush=True)


def report(result: Result) -> str:
    """Empty if there is no violation."""
    if not result.violations:
        return ""
    lines = [f"seed {result.seed} has {len(result.violations)} violations:"]
    lines += [f"  {violation}" for violation in result.violations[:5]]
    return "\n".join([*lines, f"replay it: {COMMAND} --seed {result.seed} --verbose"])


def counts(of: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in of.most_common())


if __name__ == "__main__":
    sys.exit(main())
