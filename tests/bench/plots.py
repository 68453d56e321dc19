"""Plots of a run: throughput over connections, latency over load, and the engine's share of its ceiling.

Needs matplotlib, which only `make bench` installs. Without it there are no plots.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.figures import Cell, Figures
from tests.bench.measurement import BARE, CEILING, OURS, Results
from tests.bench.tables import throughput
from tests.bench.workloads import WORKLOADS

DPI = 80
INCHES_PER_PANEL = 4.6, 3.6
# By the first word of a server's name; number formats of one server share a colour.
COLOURS = {"Heddle": "tab:orange", "bare": "tab:gray", "Infinity": "tab:blue", "FastAPI": "tab:green"}
COLOUR_OF_OTHERS = "tab:purple"


def drawn(results: Results, folder: Path) -> dict[str, str]:
    """Draws the plots, and returns their file names by what they show."""
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
    def point(cell: Cell, unit: str) -> tuple[float, float]:
        return cell.rounds[0].connections, throughput(cell, unit)

    return draw_lines(figures, "closed", point, x="connections", y="{unit}/s")


def draw_latency(figures: Figures) -> Any:
    def point(cell: Cell, _: str) -> tuple[float, float]:
        return cell.per_second, cell.mean(lambda one: one.p99_ms)

    return draw_lines(figures, "open", point, x="requests/s, arriving at random", y="p99 ms")


def draw_lines(
    figures: Figures, phase: str, point: Callable[[Cell, str], tuple[float, float]], *, x: str, y: str
) -> Any:
    """Draws a panel for each workload, with a line for each server."""
    workloads = list(dict.fromkeys(workload for workload, _, _ in figures.cells(phase)))
    if not workloads:
        return None
    picture, axes = panels(len(workloads))
    for axis, workload in zip(axes, workloads, strict=True):
        unit = WORKLOADS[workload].unit
        for server, cells in by_server(figures, phase, workload).items():
            plot(axis, sorted(point(cell, unit) for cell in cells), server)
        axis.set(xlabel=x, ylabel=y.format(unit=unit), title=workload)
    axes[0].legend(fontsize="x-small")
    return picture


def plot(axis: Any, line: list[tuple[float, float]], server: str) -> None:
    """Draws on logarithmic axes, which have no place for a rate of zero."""
    from matplotlib.ticker import NullFormatter

    points = [(x, y) for x, y in line if x and y]
    if points:
        axis.plot(*zip(*points, strict=True), **style(server))
    axis.set(xscale="log", yscale="log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(visible=True, alpha=0.3)


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
    """Heddle stands out. Servers differ in colour, number formats in dashes."""
    dashes = "--" if server.endswith("float32") else ":" if server == BARE else "-"
    return {
        "label": server,
        "color": COLOURS.get(server.split(maxsplit=1)[0], COLOUR_OF_OTHERS),
        "marker": "o",
        "markersize": 3,
        "linestyle": dashes,
        "linewidth": 2.5 if server == OURS else 1,
    }
