"""The aims for Heddle, and what a run reached. Most figures are ratios of neighbouring turns of one run.

The aims are for a machine with two cores whose processor multiplies bfloat16 matrices. `report` uses this.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tests.bench.figures import OUTSIDE_THE_ENGINE, Cell, Figures
from tests.bench.measurement import BARE, OURS, Measurement
from tests.bench.plan import ONE_ENGINE, SIMULATED, TWO_ENGINES


@dataclass(frozen=True)
class Aim:
    what: str
    wanted: str
    got: float | None  # None: not measured
    is_met: bool
    shown: str

    @property
    def verdict(self) -> str:
        if self.got is None:
            return "not measured"
        return "yes" if self.is_met else "no"


def aims(figures: Figures) -> list[Aim]:
    return [*against_peers(figures), *inside(figures), *of_the_engine(figures), *of_the_control_plane(figures)]


def at_least(what: str, wanted: float, got: float | None, form: str = "{:.2f} times") -> Aim:
    return Aim(what, f"≥ {form.format(wanted)}", got, got is not None and got >= wanted, shown(got, form))


def at_most(what: str, wanted: float, got: float | None, form: str = "{:.2f} times") -> Aim:
    return Aim(what, f"≤ {form.format(wanted)}", got, got is not None and got <= wanted, shown(got, form))


def shown(got: float | None, form: str) -> str:
    return "" if got is None else form.format(got)


def against_peers(figures: Figures) -> Iterator[Aim]:
    short = partial(figures.cell, "closed", "short", 256)
    long = partial(figures.cell, "closed", "long", 64)
    infinity = "Infinity bfloat16"
    yield at_least("5 tokens, 256 connections: over Infinity bf16", 6, figures.ratio(short(OURS), short(infinity)))
    yield at_least("5 tokens, 256 connections: over the best peer", 3, lowest(figures, short, figures.peers()))
    yield at_least("500 tokens, 64 connections: over Infinity bf16", 1.8, figures.ratio(long(OURS), long(infinity)))
    fp32 = figures.peers("float32")
    yield at_least("500 tokens, 64 connections: over the best fp32 peer", 4, lowest(figures, long, fp32))


def lowest(figures: Figures, cell: Callable[[str], Cell | None], peers: list[str]) -> float | None:
    ratios = [figures.ratio(cell(OURS), cell(peer)) for peer in peers]
    return min((ratio for ratio in ratios if ratio is not None), default=None)


def inside(figures: Figures) -> Iterator[Aim]:
    def survives(workload: str, connections: int) -> float | None:
        ours, bare = (figures.cell("closed", workload, connections, server) for server in (OURS, BARE))
        return figures.ratio(ours, bare)

    yield at_least("throughput of the bare engine left over HTTP: long", 0.9, survives("long", 64), "{:.0%}")
    yield at_least("throughput of the bare engine left over HTTP: short", 0.75, survives("short", 256), "{:.0%}")
    loaded = figures.cell("closed", "short", 256, OURS)
    outside = loaded.cpu_us(*OUTSIDE_THE_ENGINE) if loaded else None
    yield at_most("CPU of gateway and tokenizer per 5-token request, 256 connections", 120, outside, "{:.0f} µs")
    one, bare = (figures.cell("closed", "short", 1, server) for server in (OURS, BARE))
    added = one.mean(p50) - bare.mean(p50) if one and bare else None
    yield at_most("p50 added to the bare forward, one connection", 1.5, added, "{:.2f} ms")
    calm, storm = (cell_of_storm(figures, name) for name in ("singles alone", "singles in the storm"))
    yield at_most(
        "p99 of single queries in the storm over alone", 3, figures.ratio(storm, calm, lambda one: one.p99_ms)
    )


def p50(one: Measurement) -> float:
    return one.p50_ms


def cell_of_storm(figures: Figures, name: str) -> Cell | None:
    return next((cell for key, cell in figures.cells("storm", name).items() if key[2] == OURS), None)


def of_the_engine(figures: Figures) -> Iterator[Aim]:
    def over(contender: str, shape: str) -> float | None:
        ours, theirs = (figures.engine("bfloat16", shape, name) for name in (OURS, contender))
        return ours / theirs if ours and theirs else None

    ours = figures.engine("bfloat16", "16x128", OURS)
    yield at_least("engine, bf16, 16x128", 58_000, ours, "{:,.0f} tokens/s")
    yield at_least("engine, bf16, 16x128: over torch eager", 1.8, over("torch eager", "16x128"))
    ratios = [over("OpenVINO", shape) for dtype, shape in figures.engine_rows() if dtype == "bfloat16"]
    known = [ratio for ratio in ratios if ratio is not None]
    yield at_least("engine, bf16, worst shape: over OpenVINO", 1.1, min(known, default=None))


def of_the_control_plane(figures: Figures) -> Iterator[Aim]:
    one, two = (figures.cell("scale", "long", 64, server) for server in (ONE_ENGINE, TWO_ENGINES))
    yield at_least("two engine processes over one, asleep instead of computing", 1.95, figures.ratio(two, one))
    loaded = figures.cell("control", "short", 256, SIMULATED)
    used_us = loaded.cpu_us(*OUTSIDE_THE_ENGINE) if loaded else 0
    per_core = 1e6 / used_us if used_us else None
    yield at_least("HTTP requests/s per core of gateway and tokenizer, no model", 8_000, per_core, "{:,.0f}")
