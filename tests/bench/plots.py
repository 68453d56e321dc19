"""Pictures of a run: throughput over connections, latency over load, the engine's share of its ceiling. Small PNGs.

Needs matplotlib, which only `make bench` installs; without it there are no pictures.
"""

import sys
from pathlib import Path
from typing import Any

from tests.bench.figures import Figures
from tests.bench.measurement import BARE, CEILING, OURS, Results
from tests.bench.tables import throughput
from tests.bench.workloads import WORKLOADS

DPI = 80
INCHES_PER_PANEL = 4.6, 3.6


def drawn(results: Results, folder: Path) -> dict[str, str]:
    """File names by what they show."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no plots: matplotlib is not installed (pip install 'heddle[bench]')", file=sys.stderr)
        return {}
    mpl.use("Agg")
    figures = Figures(results.measurements, results.engine)
    pictures = {}
    for name, draw in (("throughput", draw_throughput), ("latency", draw_latency), ("ceiling", draw_ceiling)):
        picture = draw(figures)
        if picture is not None:
            picture.tight_layout()
            picture.savefig(folder / f"{name}.png", dpi=DPI)
            pictures[name] = f"{name}.png"
    return pictures


def panels(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    width, height = INCHES_PER_PANEL
    picture = Figure(figsize=(width * count, height))
    return picture, [picture.add_subplot(1, count, 1 + index) for index in range(count)]


def draw_throughput(figures: Figures) -> Any:
    workloads = list(dict.fromkeys(workload for workload, _, _ in figures.cells("closed")))
    if not workloads:
        return None
    picture, axes = panels(len(workloads))
    for axis, workload in zip(axes, workloads, strict=True):
        unit = WORKLOADS[workload].unit
        for server, points in by_server(figures, "closed", workload).items():
            line = sorted((cell.rounds[0].connections, throughput(cell, unit)) for cell in points)
            axis.plot(*zip(*line, strict=True), **style(server))
        axis.set(xscale="log", yscale="log", xlabel="connections", ylabel=f"{unit}/s", title=workload)
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend(fontsize="x-small")
    return picture


def draw_latency(figures: Figures) -> Any:
    workloads = list(dict.fromkeys(workload for workload, _, _ in figures.cells("open")))
    if not workloads:
        return None
    picture, axes = panels(len(workloads))
    for axis, workload in zip(axes, workloads, strict=True):
        for server, cells in by_server(figures, "open", workload).items():
            line = sorted((cell.per_second, cell.mean(lambda one: one.p99_ms)) for cell in cells)
            axis.plot(*zip(*line, strict=True), **style(server))
        axis.set(xscale="log", yscale="log", xlabel="requests/s, arriving at random", ylabel="p99 ms", title=workload)
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend(fontsize="x-small")
    return picture


def by_server(figures: Figures, phase: str, workload: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for (_, _, server), cell in figures.cells(phase, workload).items():
        found.setdefault(server, []).append(cell)
    return found


def draw_ceiling(figures: Figures) -> Any:
    dtypes = list(dict.fromkeys(dtype for dtype, _ in figures.engine_rows()))
    if not dtypes:
        return None
    picture, axes = panels(len(dtypes))
    contenders = [name for name in figures.contenders() if name != CEILING]
    for axis, dtype in zip(axes, dtypes, strict=True):
        shapes = [shape for one, shape in figures.engine_rows() if one == dtype]
        for index, contender in enumerate(contenders):
            shares = [share_of(figures, dtype, shape, contender) for shape in shapes]
            places = [place + (index - len(contenders) / 2) * 0.8 / len(contenders) for place in range(len(shapes))]
            axis.bar(places, shares, 0.8 / len(contenders), align="edge", label=contender)
        axis.set(ylabel="% of the matrix products' ceiling", title=dtype)
        axis.set_xticks(range(len(shapes)), shapes, fontsize="small")
    axes[0].legend(fontsize="x-small")
    return picture


def share_of(figures: Figures, dtype: str, shape: str, contender: str) -> float:
    rate, ceiling = figures.engine(dtype, shape, contender), figures.engine(dtype, shape, CEILING)
    return 100 * rate / ceiling if rate and ceiling else 0.0


def style(server: str) -> dict[str, Any]:
    """Ours stands out; number formats of one server share a line style."""
    dashes = "--" if server.endswith("float32") else ":" if server == BARE else "-"
    return {
        "label": server,
        "marker": "o",
        "markersize": 3,
        "linestyle": dashes,
        "linewidth": 2.5 if server == OURS else 1,
    }
