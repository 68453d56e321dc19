"""The phases of a start of `heddle serve`, from the log lines of its services. `bench_start` uses it.

A service logs `ready after 1.97 s: imports 0.35, ...` when it is ready (see `heddle.rpc.start_times`), and when it
listens. Phases of two services may overlap, so each has its own rows.
"""

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.bench.ratios import ratio_of_turns
from tests.bench.tables import table

FIRST_ANSWER, CPU = "first answer", "CPU time until then"

LINE = re.compile(r"(?P<service>gateway|tokenizer|engine): (?P<time>\d\d:\d\d:\d\d\.\d{3}) info \S+: (?P<text>.*)")
READY = re.compile(r"ready after (?P<seconds>[\d.]+) s(: (?P<phases>.*))?")
EVENTS = {"listening on ": "listens", "ready after ": "ready"}

DAY_S = 86_400

WHOSE = ("engine", "tokenizer", "gateway", FIRST_ANSWER, CPU)
KINDS = ("starts", ":", "listens", "ready")

Start = Mapping[str, float]  # seconds by row


def read_log(lines: Iterable[str], began_at: float) -> dict[str, float]:
    """Returns when services listened and were ready, in seconds since the start of `heddle serve`, and how long their
    phases took. Older trees do not log phases. `began_at` is the start, in
    seconds of the local day."""
    rows: dict[str, float] = {}
    for line in lines:
        told = LINE.match(line)
        if told is None:
            continue
        service, text = told["service"], told["text"]
        for beginning, event in EVENTS.items():
            if text.startswith(beginning):
                rows.setdefault(f"{service} {event}", (seconds_of_day(told["time"]) - began_at) % DAY_S)
        ready = READY.match(text)
        if ready and ready["phases"]:
            rows[f"{service} starts"] = rows[f"{service} ready"] - float(ready["seconds"])
            for phase in ready["phases"].split(", "):
                name, _, seconds = phase.rpartition(" ")
                rows[f"{service}: {name}"] = float(seconds)
    return rows


def seconds_of_day(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def comparison(starts: Mapping[str, Sequence[Start]]) -> Iterator[str]:
    """Returns the least and the median seconds of each tree, and the ratio of each but the first to the first: the mean
    over the rounds, in each of which both have started."""
    first, *others = starts
    rows = dict.fromkeys(row for those in starts.values() for one in those for row in one)
    body = []
    for row in sorted(rows, key=order):
        values = {
            tree: {turn: one[row] for turn, one in enumerate(those) if row in one} for tree, those in starts.items()
        }
        cells = [
            f"{cell:.2f}" if found else ""
            for found in values.values()
            for cell in ((min(found.values()), statistics.median(found.values())) if found else (0.0, 0.0))
        ]
        ratios = [ratio_of_turns(values[tree], values[first]) for tree in others]
        body.append((row, *cells, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)))
    head = [f"{tree}, {kind}" for tree in starts for kind in ("least", "median")]
    yield from table(("seconds", *head, *(f"{tree} / {first}" for tree in others)), body)


def order(row: str) -> tuple[int, int]:
    """Returns the sort key of a row: service by service its start, phases and events; then the rows for all."""
    service = next(place for place, words in enumerate(WHOSE) if row.startswith(words))
    return service, next((place for place, word in enumerate(KINDS) if word in row), 0)
