"""The benchmark: Heddle beside other servers, its engine beside other engines, its control plane alone.

    make bench          under 25 minutes
    make bench-quick    under 4: fewer loads, fewer peers, one round

Writes report.md, measurements.json and plots to a folder named after the date. `taskset -c 0-1 make bench` keeps
everything on two cores.
"""

import argparse
import datetime as dt
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from tests.bench import machine, plots
from tests.bench.lineup import PEERS, Folders, Lineup, lineup
from tests.bench.measurement import OURS, Results
from tests.bench.phases import Run
from tests.bench.plan import FULL, PHASES, QUICK, Plan
from tests.bench.progress import Progress
from tests.bench.references import References
from tests.bench.report import rendered
from tests.bench.servers import Server

HERE = Path(__file__).parent
# Of transformers, here and in all processes that are started: bars and warnings between our lines.
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
QUICK_PEERS = ("Infinity bfloat16",)


def main() -> int:
    options = parsed_options()
    os.environ.update(QUIET)
    scope = QUICK if options.quick else FULL
    scope = replace(scope, seconds=options.seconds or scope.seconds, rounds=options.rounds or scope.rounds)
    folders = Folders.made(options.peers)
    servers = lineup(options.peers, folders, options.tei, options.servers.split(",") if options.servers else [])
    if options.quick:
        servers = quick(servers)
    names = [[server.name for server in some] for some in (servers.embedders, servers.rerankers)]
    plan = Plan(scope, options.only.split(","), *names)
    plan = plan if options.seconds else plan.fitted()
    print_plan(plan, servers)
    if options.plan:
        return 0
    results = Results(machine.described(), settings_of(plan, options.quick), list(servers.skipped))
    run = Run(
        *(plan, servers.embedders, servers.rerankers, References(folders.reranker), Progress(plan.seconds), results),
        peers=options.peers,
    )
    folder = options.out or HERE / "results" / f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
    # As ctrl-C does: servers are stopped, and what was measured is written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for _ in run.all():
            results.write(folder / "measurements.json")
    finally:
        written(results, folder)
    return 1 if any(server == OURS for _, server in run.out) else 0


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under 4 minutes")
    parser.add_argument("--only", default=",".join(PHASES), help="phases, separated by commas (%(default)s)")
    parser.add_argument("--servers", default=",".join(PEERS), help="peers, separated by commas (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, help=f"of a turn ({FULL.seconds:g}, or less if it would take too long)"
    )
    parser.add_argument("--rounds", type=int, help=f"turns of each server under each load ({FULL.rounds})")
    peers = Path(sys.prefix) / "peers"
    parser.add_argument("--peers", type=Path, default=peers, help="where peers are installed (%(default)s)")
    parser.add_argument("--tei", type=Path, help="a text-embeddings-router, if it is not on PATH")
    parser.add_argument("--out", type=Path, help="folder of the results (results/ and the date)")
    parser.add_argument("--plan", action="store_true", help="say how long it would take, and measure nothing")
    options = parser.parse_args()
    for given, known in ((options.only, PHASES), (options.servers, PEERS)):
        if unknown := set(filter(None, given.split(","))) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options


def quick(servers: Lineup) -> Lineup:
    def some(those: list[Server]) -> list[Server]:
        return [server for server in those if server.name in (OURS, *QUICK_PEERS)]

    return Lineup(some(servers.embedders), some(servers.rerankers), servers.skipped)


def print_plan(plan: Plan, servers: Lineup) -> None:
    for line in servers.skipped:
        print(line, file=sys.stderr)
    print(
        f"{', '.join(plan.embedders)}; turns of {plan.scope.seconds:g} s, {plan.scope.rounds} rounds", file=sys.stderr
    )
    for phase in plan.phases:
        print(f"  {phase:10} {plan.seconds_of(phase) / 60:5.1f} minutes", file=sys.stderr)
    print(f"  {'in all':10} {plan.seconds / 60:5.1f} minutes", file=sys.stderr, flush=True)


def settings_of(plan: Plan, quick: bool) -> dict[str, object]:
    return {
        "quick": quick,
        "phases": list(plan.phases),
        "seconds": plan.scope.seconds,
        "rounds": plan.scope.rounds,
        "planned_minutes": plan.seconds / 60,
        "servers": list(plan.embedders),
    }


def written(results: Results, folder: Path) -> None:
    results.write(folder / "measurements.json")
    pictures = plots.drawn(results, folder)
    (folder / "report.md").write_text(rendered(results, pictures))
    print(f"written: {folder}/report.md", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
