"""The cost of a single-input request and of each further input, from turns with requests of two sizes. `bench_inputs`
uses it.

Costs are by service, in microseconds of CPU time, in calls of Python functions or in calls of C functions.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.ratios import ratio_of_turns
from tests.bench.tables import TIERS, table

INPUTS = 1024  # of a large request


@dataclass(frozen=True)
class Turn:
    """One tree under requests of one size."""

    requests: int
    inputs_per_second: float
    cost: Mapping[str, float]  # of all requests, by service

    def cost_of_request(self, service: str) -> float:
        return self.cost.get(service, 0.0) / self.requests


@dataclass(frozen=True)
class Round:
    """One tree's turns with requests of one input, and of INPUTS."""

    single: Turn
    many: Turn

    def of_single(self, service: str) -> float:
        return self.single.cost_of_request(service)

    def of_further_input(self, service: str) -> float:
        return (self.many.cost_of_request(service) - self.of_single(service)) / (INPUTS - 1)


Figure = Callable[[Round], float]


def figures(unit: str) -> Iterator[tuple[str, Figure]]:
    """Figures for the rows of a table, for each service and all together."""
    for title, cost in (("per further input", Round.of_further_input), ("per single-input request", Round.of_single)):
        for service, name in TIERS.items():
            yield f"{unit} {title}: {name}", lambda one, cost=cost, service=service: cost(one, service)  # type: ignore[misc]
        yield f"{unit} {title}: all", lambda one, cost=cost: sum(cost(one, service) for service in TIERS)  # type: ignore[misc]


RATES: Sequence[tuple[str, Figure]] = (
    (f"inputs/s, requests of {INPUTS:,}", lambda one: one.many.inputs_per_second),
    ("inputs/s, requests of 1", lambda one: one.single.inputs_per_second),
)


def comparison(rounds: Mapping[str, Sequence[Round]], rows: Sequence[tuple[str, Figure]]) -> Iterator[str]:
    """Returns the medians of each tree and, for all but the first, the ratio to the first."""
    first, *others = rounds
    body = []
    for title, figure in rows:
        values = {name: {turn: figure(one) for turn, one in enumerate(those)} for name, those in rounds.items()}
        medians = [f"{statistics.median(those.values()):,.1f}" for those in values.values()]
        ratios = [ratio_of_turns(values[name], values[first]) for name in others]
        body.append((title, *medians, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)))
    yield from table(("", *rounds, *(f"{name} / {first}" for name in others)), body)


def dearest(
    single: Counter[str], many: Counter[str], requests: tuple[int, int], count: int
) -> Iterator[tuple[str, float]]:
    """Returns the functions with the most calls per further input. `requests` is how many there were of each size."""
    per_input = {
        name: (many[name] / requests[1] - single[name] / requests[0]) / (INPUTS - 1) for name in many.keys() | single
    }
    yield from sorted(per_input.items(), key=lambda item: (-item[1], item[0]))[:count]
