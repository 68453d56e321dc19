"""Computes figures from the measurements of a run. `aims`, `report` and `plots` use it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import mean

from tests.bench.measurement import BARE, OURS, EngineFigure, Measurement
from tests.bench.ratios import ratio_of_turns

OUTSIDE_THE_ENGINE = ("http_gateway", "tokenizer_svc")


@dataclass(frozen=True)
class Cell:
    """All rounds of one server under one load."""

    rounds: list[Measurement]

    def mean(self, value: Callable[[Measurement], float]) -> float:
        return mean(map(value, self.rounds))

    def sum(self, value: Callable[[Measurement], int]) -> int:
        return sum(map(value, self.rounds))

    @property
    def per_second(self) -> float:
        return self.mean(lambda one: one.per_second)

    def by_round(self, value: Callable[[Measurement], float]) -> dict[int, float]:
        return {one.round: value(one) for one in self.rounds}

    def cpu_us(self, *names: str) -> float:
        """Returns CPU microseconds per answer of these processes, by default of all but the load."""
        return self.mean(
            lambda one: sum(us for name, us in one.cpu_us.items() if (name in names if names else name != "load"))
        )


class Figures:
    def __init__(self, measurements: Iterable[Measurement], engine: Iterable[EngineFigure] = ()) -> None:
        self.measurements = list(measurements)
        self._engine = {(one.dtype, one.shape, one.contender): one.tokens_per_second for one in engine}

    def cells(self, phase: str, workload: str | None = None) -> dict[tuple[str, str, str], Cell]:
        """Returns the cells by workload, load and server, in the order of their first measurement."""
        rounds: dict[tuple[str, str, str], list[Measurement]] = {}
        for one in self.measurements:
            if one.phase == phase and workload in (None, one.workload):
                rounds.setdefault((one.workload, one.load, one.server), []).append(one)
        return {key: Cell(those) for key, those in rounds.items()}

    def cell(self, phase: str, workload: str, connections: int, server: str) -> Cell | None:
        return self.cells(phase).get((workload, f"{connections} connections", server))

    def ratio(
        self,
        ours: Cell | None,
        theirs: Cell | None,
        value: Callable[[Measurement], float] = lambda one: one.per_second,
    ) -> float | None:
        return ratio_of_turns(ours.by_round(value), theirs.by_round(value)) if ours and theirs else None

    def peers(self, part: str = "") -> list[str]:
        """Returns the other servers whose names contain this, such as a number format."""
        names = dict.fromkeys(one.server for one in self.measurements if one.phase in ("closed", "rerank"))
        return [name for name in names if name not in (OURS, BARE) and part in name]

    def engine(self, dtype: str, shape: str, contender: str) -> float | None:
        return self._engine.get((dtype, shape, contender))

    def engine_rows(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((dtype, shape) for dtype, shape, _ in self._engine))

    def contenders(self) -> list[str]:
        return list(dict.fromkeys(contender for _, _, contender in self._engine))
