"""Markdown tables of the measurements. `report` uses them."""

from collections.abc import Iterator, Sequence

from tests.bench.figures import Cell, Figures
from tests.bench.measurement import CEILING, OURS, PrefixFigure
from tests.bench.workloads import WORKLOADS

TIERS = {"http_gateway": "gateway", "tokenizer_svc": "tokenizer", "engine_svc": "engine"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def served(figures: Figures, phase: str, workload: str | None = None) -> Iterator[str]:
    """Has a row for each load and server."""
    cells = figures.cells(phase, workload)
    unit = unit_of(next(iter(cells))[0]) if cells else "requests"
    head = (
        "load",
        "server",
        f"{unit}/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "errors",
        "CPU µs per request",
        "Heddle's ratio",
    )
    rows = [
        (load, server, f"{throughput(cell, unit):,.0f}", *latencies(cell), faults(cell), cpu(cell), ratio)
        for (name, load, server), cell in sorted(cells.items(), key=lambda item: size_of(item[1]))
        for ratio in [ratio_of(figures, cells.get((name, load, OURS)), cell, server)]
    ]
    yield from table(head, rows)


def size_of(cell: Cell) -> tuple[int, float]:
    return cell.rounds[0].connections, cell.rounds[0].share


def unit_of(workload: str) -> str:
    return WORKLOADS[workload].unit if workload in WORKLOADS else "requests"


def throughput(cell: Cell, unit: str) -> float:
    if unit == "tokens":
        return cell.mean(lambda one: one.tokens_per_second)
    return cell.mean(lambda one: one.inputs / one.seconds) if unit == "pairs" else cell.per_second


def latencies(cell: Cell) -> tuple[str, str, str]:
    """If a turn ended before every connection had an answer, only the fast answers are known."""
    if not cell.sum(lambda one: one.answers):
        return "none", "", ""
    values = cell.mean(lambda one: one.p50_ms), cell.mean(lambda one: one.p90_ms), cell.mean(lambda one: one.p99_ms)
    sign = "≥ " if any(one.answers < one.connections for one in cell.rounds) else ""
    p50, p90, p99 = (f"{sign}{value:,.1f}" for value in values)
    return p50, p90, p99


def faults(cell: Cell) -> str:
    errors, unanswered = cell.sum(lambda one: one.errors), cell.sum(lambda one: one.unanswered)
    return f"{errors}, {unanswered} unanswered" if unanswered else f"{errors}"


def cpu(cell: Cell) -> str:
    """Shows CPU time by tier, if the server has tiers."""
    names = cell.rounds[0].cpu_us
    tiers = [f"{short} {cell.cpu_us(name):,.0f}" for name, short in TIERS.items() if name in names]
    return ", ".join(tiers) if tiers else f"{cell.cpu_us():,.0f}" if names else ""


def ratio_of(figures: Figures, ours: Cell | None, theirs: Cell, server: str) -> str:
    """Empty for an open loop, where each server has its own rate."""
    if server == OURS or theirs.rounds[0].share:
        return ""
    ratio = figures.ratio(ours, theirs)
    return "" if ratio is None else f"{ratio:.2f}"


def storm(figures: Figures) -> Iterator[str]:
    cells = figures.cells("storm")
    by_server: dict[str, dict[str, Cell]] = {}
    for (workload, _, server), cell in cells.items():
        by_server.setdefault(server, {})[workload] = cell
    rows = []
    for server, those in by_server.items():
        alone, during, itself = (those[name] for name in ("singles alone", "singles in the storm", "the storm itself"))
        p99s = [cell.mean(lambda one: one.p99_ms) for cell in (alone, during)]
        told = f"{itself.sum(lambda one: one.answers)} answers, {itself.sum(lambda one: one.errors)} errors"
        factor = f"{p99s[1] / p99s[0]:,.1f}" if p99s[0] else ""
        rows.append((server, *(f"{p99:,.1f}" for p99 in p99s), factor, faults(during), told))
    head = ("server", "p99 ms alone", "p99 ms in the storm", "factor", "errors of singles", "the storm")
    yield from table(head, rows)


def engine(figures: Figures) -> Iterator[str]:
    others = [name for name in figures.contenders() if name not in (OURS, CEILING)]
    head = ("dtype", "shape", f"{OURS} tokens/s", *others, "ceiling of the products", f"{OURS}'s share of it")
    rows = []
    for dtype, shape in figures.engine_rows():
        ours, ceiling = (figures.engine(dtype, shape, name) for name in (OURS, CEILING))
        their = [figures.engine(dtype, shape, name) for name in others]
        share = f"{ours / ceiling:.0%}" if ours and ceiling else ""
        rows.append((dtype, shape, *(f"{one:,.0f}" if one else "" for one in (ours, *their, ceiling)), share))
    yield from table(head, rows)


def prefixes(figures: Sequence[PrefixFigure]) -> Iterator[str]:
    rows = [
        (f"{one.prefix_tokens}", f"{1e3 * one.once_s:,.0f}", f"{1e3 * one.each_time_s:,.0f}", factor)
        for one in figures
        for factor in [f"{one.each_time_s / one.once_s:.2f}"]
    ]
    yield from table(("prefix tokens", "ms, prefix once", "ms, each time", "factor"), rows)
