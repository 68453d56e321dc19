"""The tables of `heddle top` for known readings, in wide and narrow terminals."""

import io
import itertools
from dataclasses import replace

import pytest
from rich.console import Console

from heddle.cli.scrape import Interval, Reading, parse
from heddle.cli.top_columns import (
    COLUMNS,
    write_age,
    write_bytes,
    write_count,
    write_seconds,
)
from heddle.cli.top_view import Down, render
from heddle.telemetry.metrics import Distribution
from tests.metrics import list_metrics

STARTED_S_AGO = 7_380


def make_reading(service: str, at: float, **values: object) -> Reading:
    """Makes a reading of metrics by name. A value is a number, a Distribution, or a dict of either by labels."""
    labels = f'service="{service}",version="1",model="org/loom-small",device="cpu",dtype="float32",backend="torch"'
    lines = [f"heddle_build_info{{{labels}}} 1", f"process_start_time_seconds {1e9 - STARTED_S_AGO}"]
    for name, value in values.items():
        metric = list_metrics().get(name)
        if metric is None:
            lines.append(f"{name} {value}")
            continue
        for sample in metric.of(value).samples:  # type: ignore[arg-type]
            inside = ",".join(f'{label}="{its}"' for label, its in sample.labels.items())
            lines.append(f"{sample.name}{{{inside}}} {sample.value}")
    return replace(parse("\n".join(lines) + "\n"), at=at, wall=1e9)


def seconds(count: int, value: float = 0.0015) -> Distribution:
    distribution = Distribution()
    distribution.observe(value, count)
    return distribution


def gateway(at: float, requests: int, failed: int = 0) -> Reading:
    return make_reading(
        "gateway",
        at,
        heddle_gateway_request_seconds={
            ("/rerank", "m", "200"): seconds(requests),
            ("/rerank", "m", "429"): seconds(2 * failed, 0.0001),
            ("/rerank", "m", "503"): seconds(failed, 0.0001),
        },
        heddle_gateway_tokens_total={("/rerank", "m"): 500 * requests},
        heddle_gateway_requests=7,
        heddle_rpc_pods={("m", "connected"): 2, ("m", "draining"): 1, ("m", "unreachable"): 0, ("m", "unlisted"): 0},
        process_cpu_seconds_total=0.25 * at,
        process_resident_memory_bytes=96 << 20,
    )


def engine(at: float, sequences: int, queued: int = 0) -> Reading:
    fill = Distribution((0.25, 0.5, 1.0))
    fill.observe(0.5, sequences)
    return make_reading(
        "engine",
        at,
        heddle_engine_sequences_total=sequences,
        heddle_engine_tokens_total=10 * sequences,
        heddle_engine_batch_fill_ratio=fill,
        heddle_engine_pass_seconds={"normal": seconds(sequences)},
        heddle_engine_running_passes=2,
        heddle_engine_queued_sequences=queued,
        heddle_engine_queued_tokens=10 * queued,
        heddle_engine_queued_tokens_max=4000,
        heddle_engine_queue_age_seconds=1.5 if queued else 0,
        heddle_engine_refused_submissions_total={"queue_full": queued, "closed": 0},
    )


GATEWAY = Interval(gateway(0, 100), gateway(2, 300, failed=1))
ENGINES = {
    "10.0.0.1:9152": Interval(engine(0, 50), engine(2, 150)),
    "10.0.0.2:9152": Interval(engine(0, 0), engine(2, 300, queued=90)),
}


def show(services: dict[str, Interval | Down], width: int = 250) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(render(services, width=width, now="12:00:01"))
    return stream.getvalue().splitlines()


def tables(services: dict[str, Interval | Down], width: int = 250) -> dict[str, dict[str, dict[str, str]]]:
    """The cells by title of the table, name of the row, and title of the column. Columns are found by position, because
    numbers are aligned to the right."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    lines = show(services, width)
    starts = [index + 1 for index, line in enumerate(lines) if not line.strip()]
    for start in starts:
        header, *rows = itertools.takewhile(str.strip, lines[start:])
        edges = column_edges([header, *rows])
        cells = [[line.ljust(len(header) + 250)[a:b].strip() for a, b in edges] for line in (header, *rows)]
        titles = cells[0]
        found[titles[0]] = {row[0]: dict(zip(titles[1:], row[1:], strict=True)) for row in cells[1:]}
    return found


def column_edges(lines: list[str]) -> list[tuple[int, int]]:
    """Finds columns, which are separated by two spaces in every line."""
    width = max(map(len, lines))
    empty = [all(line.ljust(width)[index] == " " for line in lines) for index in range(width)]
    edges, start = [], 0
    for index in range(width - 1):
        if empty[index] and empty[index + 1] and not all(empty[start:index]):
            edges.append((start, index))
            start = index
    return [*edges, (start, width)]


def test_a_gateway_shows_requests_by_status_latency_tokens_and_pods() -> None:
    cells = tables({"gw:8080": GATEWAY})["gateway"]["gw:8080"]
    expected = {
        "model": "loom-small",
        "req/s": "102",
        "2xx": "100",
        "429": "1",
        "5xx": "0.5",
        "4xx": "0",
        "p50": "1.5 ms",
        "p99": "2.0 ms",
        "tok/s": "50.0k",
        "open": "7",
        "pods": "2, 1 draining",
        "cpu": "25 %",
        "memory": "96M",
        "up": "2h 3m",
    }
    assert {title: cells[title] for title in expected} == expected


def test_engines_show_passes_fill_queue_and_their_total() -> None:
    rows = tables(dict(ENGINES))["2 engines"]
    first, second, total = rows["10.0.0.1:9152"], rows["10.0.0.2:9152"], rows["total"]
    assert (first["seq/s"], second["seq/s"], total["seq/s"]) == ("50", "150", "200")
    assert (first["tok/s"], second["tok/s"], total["tok/s"]) == ("500", "1,500", "2,000")
    assert (second["queue"], second["queue tok"], second["age"], second["queue used"]) == (
        "90",
        "900",
        "1.50 s",
        "22 %",
    )
    assert (first["fill"], first["passes"], total["passes"]) == ("50 %", "2", "4")
    assert (second["refused"], total["refused"]) == ("45", "45")
    assert (first["device"], first["dtype"]) == ("cpu", "float32")
    assert total["fill"] == total["age"] == ""


def test_a_first_reading_shows_gauges_but_no_rates() -> None:
    cells = tables({"gw:8080": Interval(None, gateway(0, 100))})["gateway"]["gw:8080"]
    assert cells["open"] == "7"
    assert "req/s" not in cells


def test_an_address_that_is_down_is_shown_with_its_reason() -> None:
    lines = show({"gw:8080": GATEWAY, "a:1": Down("connection refused"), "b:2": Down("no answer within 2 s", 63.2)})
    assert lines[0] == "heddle top  12:00:01  1 up, 2 down"
    assert lines[-2:] == ["a:1 is down: connection refused", "b:2 is down for 63 s: no answer within 2 s"]


def test_what_a_peer_sends_and_a_password_reach_no_terminal() -> None:
    escape = "\x1b[2J"
    reading = parse(f'heddle_build_info{{service="engine",model="a{escape}",device="b{escape}"}} 1\n')
    lines = show({"http://u:secret@e:1": Interval(None, reading), "down:1": Down(f"c{escape}\nheddle top")})
    assert sum(line.count("\\x1b[2J") for line in lines) == 3
    assert not any("\x1b" in line or "secret" in line for line in lines)
    assert lines[-1].startswith("down:1 is down: c")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 160])
def test_a_narrow_terminal_shows_the_most_important_columns_whole(width: int) -> None:
    lines = show({"gw:8080": GATEWAY, **ENGINES}, width)
    assert max(map(len, lines[1:])) <= width
    if width >= 40:
        assert not any("…" in line for line in lines)
        gateway_cells = tables({"gw:8080": GATEWAY}, width)["gateway"]["gw:8080"]
        assert {"req/s", "5xx", "p99"} <= set(gateway_cells)


def test_every_metric_that_is_shown_exists() -> None:
    """Each column is evaluated on an empty reading that records the metric names it looks up."""
    asked: set[str] = set()

    class Names(dict[str, list[tuple[dict[str, str], float]]]):
        def get(self, name: str, default: object = None) -> list[tuple[dict[str, str], float]]:
            asked.add(name)
            return [({"le": "+Inf"}, 1.0)]

    reading = Reading(0.0, Names())
    for columns in COLUMNS.values():
        for column in columns:
            column.value(Interval(reading, replace(reading, at=1.0)))
    known = set(list_metrics()) | {"process_cpu_seconds_total", "process_resident_memory_bytes"}
    stems = {name.removesuffix("_count").removesuffix("_sum").removesuffix("_bucket") for name in asked}
    assert stems - known == {"process_start_time_seconds"}


def test_figures_are_short() -> None:
    assert [write_count(value) for value in (0, 0.5, 9.96, 105.4, 1234, 12_345, 2.5e6)] == [
        *("0", "0.5", "10.0", "105", "1,234", "12.3k", "2.5M")
    ]
    assert [write_bytes(value) for value in (10, 2048, 96 << 20, 3 << 30)] == ["10", "2.0k", "96M", "3.0G"]
    assert [write_seconds(value) for value in (0, 0.0015, 0.085, 1.234, 75)] == [
        *("0 ms", "1.5 ms", "85 ms", "1.23 s", "75 s")
    ]
    assert [write_age(value) for value in (5, 61, 7380, 90_000)] == ["5s", "1m 1s", "2h 3m", "1d 1h"]
