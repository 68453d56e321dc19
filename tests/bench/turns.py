"""Takes a turn: measures one server under one load, and checks its answers. `phases` calls it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from tests.bench.bare import BareEngine
from tests.bench.dialect import body_of, path_of
from tests.bench.load import Load, Report, finished, measure, started
from tests.bench.measurement import BARE, Measurement
from tests.bench.plan import EXTENDED, WARM_UP_S, Turn
from tests.bench.ratios import percentile
from tests.bench.references import References
from tests.bench.servers import Running
from tests.bench.workloads import WORKLOADS, Workload

# Of single queries around the storm: few enough that they alone load no server.
SINGLES_PER_SECOND = 20.0
STORM_LEAD_S = 1.5
CAPACITY_CONNECTIONS = 64
# Of an open loop, on a machine so slow that a turn had no answer.
PER_SECOND_MIN = 0.5
NONE: Mapping[str, float] = {}


@dataclass
class Turns:
    """The turns of the servers that run now."""

    running: dict[str, Running]
    bare: BareEngine | None
    references: References
    measured: list[Measurement] = field(default_factory=list)

    def take(self, turn: Turn) -> list[Measurement]:
        if turn.server == BARE:
            return [self.take_bare(turn)]
        running = self.running[turn.server]
        workload = WORKLOADS[turn.workload]
        if turn.phase == "storm":
            return self.take_storm(turn, running)
        if turn.connections:
            return [self.observed(turn, running, workload, connections=turn.connections)]
        rate = max(turn.share * self.capacity(turn, running), PER_SECOND_MIN)
        return [self.observed(turn, running, workload, per_second=rate)]

    def take_bare(self, turn: Turn) -> Measurement:
        assert self.bare
        tokens = WORKLOADS[turn.workload].requests[0].tokens
        passes = self.bare.passes(turn.connections, tokens, turn.seconds)
        p50, p90, p99 = (1e3 * percentile(passes.taken_s, percent) for percent in (50, 90, 99))
        return Measurement(
            *(turn.phase, turn.workload, BARE, turn.round, turn.connections, 0.0),
            *(passes.seconds, passes.sequences, passes.sequences, passes.sequences * tokens),
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
        )

    def capacity(self, turn: Turn, running: Running) -> float:
        """Returns requests per second, the best of the closed loops so far."""
        rates: dict[int, list[float]] = {}
        for one in self.measured:
            if (one.phase, one.workload, one.server) == ("closed", turn.workload, turn.server):
                rates.setdefault(one.connections, []).append(one.per_second)
        if rates:
            return max(mean(those) for those in rates.values())
        closed = Turn("closed", turn.workload, turn.server, 0, turn.seconds, CAPACITY_CONNECTIONS)
        return self.observed(closed, running, WORKLOADS[turn.workload], connections=CAPACITY_CONNECTIONS).per_second

    def take_storm(self, turn: Turn, running: Running) -> list[Measurement]:
        """Measures single queries alone, then after one caller has sent 2,048 long texts. Stops the server then,
        because some would go on for minutes with work that nobody waits for."""
        singles = WORKLOADS["short"]
        alone = self.observed(turn, running, singles, name="singles alone", per_second=SINGLES_PER_SECOND)
        seconds = STORM_LEAD_S + WARM_UP_S + turn.seconds
        with started(self.load_of(turn, running, WORKLOADS["storm"], connections=1, seconds=seconds)) as storm:
            time.sleep(STORM_LEAD_S)
            during = self.observed(
                turn, running, singles, name="singles in the storm", per_second=SINGLES_PER_SECOND, waits=False
            )
            report = finished(storm)
        running.stop(patience_s=1)
        return [alone, during, measurement_of(turn, WORKLOADS["storm"], report, name="the storm itself")]

    def observed(
        self, turn: Turn, running: Running, workload: Workload, *, name: str = "", waits: bool = True, **options: Any
    ) -> Measurement:
        """The CPU time is that of the whole turn, warm-up included, divided by all its answers."""
        before = running.cpu_seconds()
        report = measure(self.load_of(turn, running, workload, **options))
        used = {name: seconds - before.get(name, 0.0) for name, seconds in running.cpu_seconds().items()}
        checked = 0
        if running.server.computes:
            checked = self.references.check(workload.name, report.kept, running.server.name)
        if waits:
            running.wait_until_idle()
        return measurement_of(turn, workload, report, name=name or workload.name, used=used, checked=checked)

    def load_of(self, turn: Turn, running: Running, workload: Workload, **options: Any) -> Load:
        server, requests = running.server, workload.requests
        settings: dict[str, Any] = {"seconds": turn.seconds, "warm_up_s": WARM_UP_S, **options}
        if workload.name != "storm":
            settings["seconds_max"] = EXTENDED * turn.seconds
        return Load(
            port=running.port,
            path=path_of(server, requests[0]),
            bodies=[body_of(server, request) for request in requests],
            start=workload.first_of(turn.round),
            kept=workload.checked if server.computes else [],
            **settings,
        )


def measurement_of(
    turn: Turn, workload: Workload, report: Report, *, name: str, used: Mapping[str, float] = NONE, checked: int = 0
) -> Measurement:
    """`used` is the CPU time of each process in seconds."""
    counts = [(request, count) for request, count in zip(workload.requests, report.answered, strict=True) if count]
    per_answer = 1e6 / max(1, report.answers_in_all)
    return Measurement(
        *(turn.phase, name, turn.server, turn.round, turn.connections, turn.share, report.seconds),
        answers=sum(report.answered),
        inputs=sum(count * len(request.texts) for request, count in counts),
        tokens=sum(count * request.tokens for request, count in counts),
        errors=report.errors,
        unanswered=report.unanswered,
        checked=checked,
        p50_ms=report.p50_ms,
        p90_ms=report.p90_ms,
        p99_ms=report.p99_ms,
        cpu_us={name: seconds * per_answer for name, seconds in {**used, "load": report.cpu_s}.items()},
    )
