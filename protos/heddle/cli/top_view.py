"""The tables of `heddle top`: one for each kind of service, and a list of addresses that cannot be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heddle.cli.scrape import Interval
from heddle.cli.top_columns import COLUMNS, NOTHING, Column, Value
from heddle.remote.addresses import hide_secrets
from heddle.telemetry.logs import one_line

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

GAP = 2  # characters between columns
ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Down:
    """An address whose metrics cannot be read."""

    reason: str
    seconds: float | None = None  # since the last reading; None without one


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: what each column shows, and its style."""

    name: str
    cells: Sequence[str]
    styles: Sequence[str]


def render(services: Mapping[str, Interval | Down], *, width: int, now: str) -> "Group":
    """`services` by address, which is shown without a password. `width` is in characters; `now` is shown as the
    time."""
    from rich.console import Group
    from rich.text import Text

    services = {one_line(hide_secrets(address)): one for address, one in services.items()}
    up = {address: one for address, one in services.items() if isinstance(one, Interval)}
    down = {address: one for address, one in services.items() if isinstance(one, Down)}
    parts: list[Table | Text] = [Text(f"heddle top  {now}  {len(up)} up, {len(down)} down", "bold", no_wrap=True)]
    for kind, columns in COLUMNS.items():
        intervals = {name: one for name, one in up.items() if one.after.describe().get("service") == kind}
        if intervals:
            parts += [Text(), make_table(kind, columns, intervals, width)]
    if down:
        parts += [Text(), *(describe_down(address, one) for address, one in down.items())]
    return Group(*parts)


def describe_down(address: str, down: Down) -> "Text":
    from rich.text import Text

    since = "" if down.seconds is None else f" for {down.seconds:.0f} s"
    return Text(f"{address} is down{since}: {one_line(down.reason)}", "bold red")


def make_table(kind: str, columns: Sequence[Column], intervals: Mapping[str, Interval], width: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    columns, rows = fit(*list_rows(columns, intervals), width - name_width(kind, intervals))
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold cyan")
    table.add_column(title_of(kind, intervals), no_wrap=True, overflow="ellipsis")
    for column in columns:
        is_text = column.write is str
        table.add_column(column.title, justify="left" if is_text else "right", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(row.name, *(Text(cell, style) for cell, style in zip(row.cells, row.styles, strict=True)))
    return table


def title_of(kind: str, intervals: Mapping[str, Interval]) -> str:
    return kind if len(intervals) == 1 else f"{len(intervals)} {kind}s"


def name_width(kind: str, intervals: Mapping[str, Interval]) -> int:
    return max(map(len, (*intervals, title_of(kind, intervals))))


def list_rows(columns: Sequence[Column], intervals: Mapping[str, Interval]) -> tuple[Sequence[Column], list[Row]]:
    """Returns the columns that have a value in any row, and the rows: one for each service, and a total of several."""
    values = [[column.value(interval) for column in columns] for interval in intervals.values()]
    kept = [index for index in range(len(columns)) if any(row[index] is not None for row in values)]
    columns = [columns[index] for index in kept]
    values = [[row[index] for index in kept] for row in values]
    names = list(intervals)
    if len(values) > 1:
        names.append("total")
        by_column = zip(*values, strict=True)
        values.append([add(each) if one.is_summed else "" for one, each in zip(columns, by_column, strict=True)])
    return columns, [make_row(name, columns, row) for name, row in zip(names, values, strict=True)]


def add(values: Sequence[Value]) -> Value:
    numbers = [value for value in values if isinstance(value, int | float)]
    return sum(numbers) if numbers else None


def make_row(name: str, columns: Sequence[Column], values: Sequence[Value]) -> Row:
    cells, styles = [], []
    for column, value in zip(columns, values, strict=True):
        if isinstance(value, int | float):
            cells.append(column.write(value))
            styles.append(column.warning if value > column.warns_above else "")
        else:
            cells.append(NOTHING if value is None else one_line(value))  # a label is whatever the peer sent
            styles.append("")
    return Row(name, cells, styles)


def fit(columns: Sequence[Column], rows: Sequence[Row], width: int) -> tuple[Sequence[Column], Sequence[Row]]:
    """Leaves out the columns with the largest ranks until the others fit into `width` characters."""
    widths = [
        GAP + max(len(column.title), *(len(row.cells[index]) for row in rows)) for index, column in enumerate(columns)
    ]
    kept = sorted(range(len(columns)), key=lambda index: columns[index].rank)
    while len(kept) > 1 and sum(widths[index] for index in kept) > width:
        kept.pop()
    kept.sort()
    return [columns[index] for index in kept], [
        Row(row.name, [row.cells[index] for index in kept], [row.styles[index] for index in kept]) for row in rows
    ]
