"""Writes the report of a run in Markdown from its measurements:

python -m tests.bench.report tests/bench/results/2026-11-24
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench import tables
from tests.bench.aims import aims
from tests.bench.figures import Figures
from tests.bench.measurement import OURS, Results
from tests.bench.workloads import WORKLOADS

HOW = f"""
all-MiniLM-L6-v2. All servers of a table run all the time, on the same cores as the load, and take turns under it;
*{OURS}'s ratio* is its throughput over theirs, taken within each round, then averaged (geometrically). Figures of
different runs do not compare. While they are measured, servers' answers are compared with sentence-transformers' in
float32 (cosine at least 0.99; logits of scores correlated by 0.98): one that is off puts its server out of the report.
By default {OURS} scores in float32, also where it embeds in bfloat16, as a peer in bfloat16 does not. *Bare engine* is
the forward pass alone, on batches as the scheduler would make them. CPU time is of all threads, per answer. Latencies
with a ≥ are of turns that were over before each connection had an answer. In open loop requests come when they are due
(Poisson), whatever became of those before, and latency counts from then; what was not answered within 2 s after the end
counts with its wait so far.
"""


def rendered(results: Results, pictures: Mapping[str, str]) -> str:
    """`pictures` are file names by what they show."""
    figures = Figures(results.measurements, results.engine)
    return "\n".join([*head(results), *map(str, body(results, figures, pictures))]).rstrip() + "\n"


def head(results: Results) -> Iterator[str]:
    machine, settings = results.machine, results.settings
    yield f"# Benchmark of {machine['date'][:10]}{', the quick one' if settings.get('quick') else ''}\n"
    yield from machine_lines(machine)
    yield f"Turns of {settings['seconds']:g} s, {settings['rounds']} rounds; commit {machine['commit']}.\n"
    yield from (f"* {note}" for note in results.notes)
    yield HOW


def machine_lines(machine: Mapping[str, Any]) -> Iterator[str]:
    instructions = ", ".join(machine["matrix instructions"])
    yield f"{machine['processor']}, {machine['cores']} cores ({instructions}), {machine['memory_gib']:.0f} GiB;"
    yield f"load average {machine['load_before']:.1f} before it began; {machine['system']}; Python {machine['python']};"
    yield ", ".join(f"{name} {version}" for name, version in machine["versions"].items()) + "."


def body(results: Results, figures: Figures, pictures: Mapping[str, str]) -> Iterator[str]:
    yield from section("Against the aims", aim_rows(figures))
    for name, workload in WORKLOADS.items():
        if figures.cells("closed", name):
            yield from section(f"Closed loop: {workload.meaning}", tables.served(figures, "closed", name))
    yield from picture(pictures, "throughput", "Throughput over connections")
    for name, workload in WORKLOADS.items():
        if figures.cells("open", name):
            title = f"Open loop, each at shares of its own capacity: {workload.meaning}"
            yield from section(title, tables.served(figures, "open", name))
    yield from picture(pictures, "latency", "Latency over load")
    if figures.cells("rerank"):
        yield from section(f"Ranking: {WORKLOADS['rerank'].meaning}", tables.served(figures, "rerank"))
    if figures.cells("storm"):
        yield from section(
            "20 single queries per second while one caller sends 2,048 long texts", tables.storm(figures)
        )
    if results.engine:
        yield from section("The engine alone", tables.engine(figures))
        yield from picture(pictures, "ceiling", "Share of the ceiling")
    if figures.cells("control"):
        yield from section("The control plane: Heddle without a model", tables.served(figures, "control"))
    if figures.cells("scale"):
        yield from section("Engine processes that sleep instead of computing", tables.served(figures, "scale"))
    if results.prefixes:
        yield from section(
            "16 documents of 64 tokens behind a shared prefix (Qwen3-Reranker-0.6B with 2 layers)",
            tables.prefixes(results.prefixes),
        )


def section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"## {title}\n"
    yield from lines
    yield ""


def picture(pictures: Mapping[str, str], key: str, title: str) -> Iterator[str]:
    if key in pictures:
        yield f"![{title}]({pictures[key]})\n"


def aim_rows(figures: Figures) -> Iterator[str]:
    rows = [(aim.what, aim.wanted, aim.shown, aim.verdict) for aim in aims(figures)]
    return tables.table(("", "aim", "this run", "met"), rows)


def main() -> None:
    folder = Path(sys.argv[1])
    pictures = {path.stem: path.name for path in folder.glob("*.png")}
    (folder / "report.md").write_text(rendered(Results.read(folder / "measurements.json"), pictures))


if __name__ == "__main__":
    main()
