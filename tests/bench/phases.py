"""The phases of a run. Each starts its servers, lets them take turns, and stops them. The command calls it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.bare import BareEngine
from tests.bench.load import LoadError
from tests.bench.measurement import EngineFigure, Measurement, PrefixFigure, Results
from tests.bench.plan import ONE_ENGINE, SIMULATED, TWO_ENGINES, Plan, Turn
from tests.bench.progress import Progress
from tests.bench.references import References, WrongAnswerError
from tests.bench.servers import Running, Server, simulated
from tests.bench.turns import Turns

# So that one sleeping engine, and not the control plane, is what two of them are compared with: 40 ms for 2,048 tokens.
ASLEEP_NS_PER_TOKEN = 20_000


@dataclass
class Run:
    plan: Plan
    embedders: Sequence[Server]
    rerankers: Sequence[Server]
    references: References
    progress: Progress
    results: Results
    peers: Path  # where environments are
    out: set[tuple[str, str]] = field(default_factory=set)  # phases and servers that gave a wrong answer, or none

    def all(self) -> Iterator[None]:
        """Yields after each phase, or after several that share servers."""
        of_embedders = [turn for phase in ("closed", "open", "storm") for turn in self.plan.turns_of(phase)]
        if of_embedders:
            self.served(self.embedders, of_embedders, has_bare="closed" in self.plan.phases)
            yield
        if "rerank" in self.plan.phases:
            self.served(self.rerankers, self.plan.turns_of("rerank"))
            yield
        if "control" in self.plan.phases:
            self.served(simulated_servers(), self.plan.turns_of("control"))
            yield
        if "engine" in self.plan.phases:
            self.engine()
            yield
        if "prefixes" in self.plan.phases and self.plan.scope.prefixes:
            self.prefixes()
            yield

    def served(self, servers: Sequence[Server], planned: Sequence[Turn], *, has_bare: bool = False) -> None:
        for workload in {turn.workload for turn in planned if turn.phase not in ("control", "scale", "storm")}:
            self.progress.line(f"computing what is right: {workload}")
            self.references.of(workload)
        with ExitStack() as stack:
            running = dict(self.started(servers, planned, stack))
            bare = BareEngine() if has_bare else None
            if bare:
                stack.callback(bare.stop)
                bare.wait_until_ready()
            self.progress.passed(self.plan.start_seconds_of(planned[0].phase))
            turns = Turns(running, bare, self.references, self.results.measurements)
            for turn in planned:
                self.take(turn, turns, planned)

    def started(
        self, servers: Sequence[Server], planned: Sequence[Turn], stack: ExitStack
    ) -> Iterator[tuple[str, Running]]:
        """Starts the servers one after the other, because each loads on all cores. Drops those that do not start."""
        for server in servers:
            self.progress.line(f"starting {server.name}")
            running = Running(server)
            stack.callback(running.stop)
            try:
                running.wait_until_ready()
            except (RuntimeError, TimeoutError) as error:
                self.exclude(server.name, planned, str(error))
                continue
            yield server.name, running

    def take(self, turn: Turn, turns: Turns, planned: Sequence[Turn]) -> None:
        if (turn.phase, turn.server) in self.out:
            self.progress.passed(turn.takes_s)
            return
        try:
            measured = turns.take(turn)
        except WrongAnswerError as error:
            self.exclude(turn.server, planned, str(error))
            measured = []
        except LoadError as error:
            self.results.notes.append(f"{turn.server}, {turn}: {error}")
            measured = []
        self.results.measurements.extend(measured)
        self.progress.passed(turn.takes_s)
        for one in measured:
            name = "" if one.workload == turn.workload else f", {one.workload}"
            self.progress.line(f"{turn}{name}: {line(one)}")

    def exclude(self, server: str, planned: Sequence[Turn], why: str) -> None:
        """Drops the server from these phases. Its figures go too, because its answers may be wrong."""
        self.out |= {(turn.phase, server) for turn in planned}
        self.results.notes.append(f"out: {why}")
        self.progress.line(f"out: {why}")
        self.results.measurements[:] = [
            one for one in self.results.measurements if (one.phase, one.server) not in self.out
        ]

    def engine(self) -> None:
        scope = self.plan.scope
        what = ("--shapes", scope.shapes, "--dtypes", scope.dtypes, "--contenders", scope.contenders)
        for content in self.told("bench_engine", *what, "--seconds", str(scope.engine_s), "--peers", str(self.peers)):
            figure = EngineFigure(**content)
            self.results.engine.append(figure)
            self.progress.line(
                f"engine, {figure.dtype} {figure.shape}: {figure.contender} {figure.tokens_per_second:,.0f} tokens/s"
            )
        self.progress.passed(self.plan.seconds_of("engine"))

    def prefixes(self) -> None:
        scope = self.plan.scope
        prefixes = ",".join(map(str, scope.prefixes))
        for content in self.told(
            "bench_prefixes", "--prefixes", prefixes, "--seconds", str(scope.engine_s), "--layers", "2"
        ):
            figure = PrefixFigure(**content)
            self.results.prefixes.append(figure)
            factor = figure.each_time_s / figure.once_s
            self.progress.line(f"prefix of {figure.prefix_tokens} tokens: {factor:.2f} times faster computed once")
        self.progress.passed(self.plan.seconds_of("prefixes"))

    def told(self, module: str, *flags: str) -> Iterator[dict[str, Any]]:
        """Runs another benchmark in a process of its own, which sets up torch for itself, and yields its lines of
        JSON."""
        command = [sys.executable, "-m", f"tests.bench.{module}", "--json", *flags]
        self.progress.line(f"starting {module}")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            yield from map(json.loads, process.stdout)
        if process.returncode:
            self.results.notes.append(f"{module} failed: what it gave may be incomplete")


def simulated_servers() -> list[Server]:
    return [
        simulated(SIMULATED, engines=1, fixed_us=0, per_token_ns=0),
        simulated(ONE_ENGINE, engines=1, fixed_us=0, per_token_ns=ASLEEP_NS_PER_TOKEN),
        simulated(TWO_ENGINES, engines=2, fixed_us=0, per_token_ns=ASLEEP_NS_PER_TOKEN),
    ]


def line(one: Measurement) -> str:
    throughput = f"{one.per_second:,.1f}/s"
    if one.tokens:
        throughput += f" ({one.tokens_per_second:,.0f} tokens/s)"
    faults = "".join(
        f", {count} {what}" for what, count in (("errors", one.errors), ("unanswered", one.unanswered)) if count
    )
    return f"{one.server} {throughput}, p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms{faults}"
