"""The turns of a run, their order and their total time, known before anything starts.

All servers of a phase run all the time. Within a round they take turns under the same load, one right after the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from tests.bench.measurement import BARE, OURS

PHASES = ("closed", "open", "storm", "rerank", "control", "engine", "prefixes")

WARM_UP_S = 0.5
# A turn is so many times as long where not every connection has an answer by then.
EXTENDED = 2
# Starting the load, and waiting until the server is idle again.
AROUND_S = 1.2
# Peers finish what they have queued: at about so many tokens per second.
DRAINED_TOKENS_PER_SECOND = 8_000
ENGINE_TOKENS_PER_SECOND = {"bfloat16": 25_000, "float32": 9_000}
PADDED_TOKENS_OF_MIX = 9_000
TOKENS_ABOUT = {"short": 5, "long": 256, "mix": 250, "rerank": 32 * 90, "storm": 0}
SIMULATED, ONE_ENGINE, TWO_ENGINES = "Heddle, no model", "Heddle, 1 engine asleep", "Heddle, 2 engines asleep"

Cells = Mapping[str, Sequence[int]]  # connections by workload
SECONDS_MIN, SECONDS_STEP = 1.0, 0.25


@dataclass(frozen=True)
class Scope:
    """How much is measured: everything, or what fits in four minutes."""

    closed: Cells
    bare: Cells
    open_workloads: Sequence[str]
    open_shares: Sequence[float]
    rerank: Sequence[int]
    storm_s: float  # with the storm, and as long before without
    control: Sequence[int]  # connections
    shapes: str
    dtypes: str
    contenders: str
    engine_start_s: float  # loading and compiling
    engine_s: float  # for each shape and number format
    prefixes: Sequence[int]
    seconds: float  # of a turn, unless they would not fit
    rounds: int
    limit_s: float  # of everything; installing comes on top

    def seconds_of_shape(self, shape: str, dtype: str) -> float:
        """Returns the seconds of all contenders together. Each makes at least five passes."""
        tokens = PADDED_TOKENS_OF_MIX if shape == "mix" else prod(map(int, shape.split("x")))
        passes_s = 5 * (1.5 + len(self.contenders.split(","))) * tokens / ENGINE_TOKENS_PER_SECOND[dtype]
        return max(self.engine_s, passes_s) + 0.5


FULL = Scope(
    closed={"short": (1, 8, 64, 256), "long": (1, 8, 64, 256), "mix": (64,)},
    bare={"short": (1, 256), "long": (1, 64)},
    open_workloads=("short", "mix"),
    open_shares=(0.5, 0.7, 0.9),
    rerank=(1, 8),
    storm_s=10,
    control=(64, 256),
    shapes="128x8,32x32,16x128,16x256,8x512,mix",
    dtypes="bfloat16,float32",
    contenders="eager,compile,openvino",
    engine_start_s=70,
    engine_s=3,
    prefixes=(64, 512),
    seconds=4,
    rounds=2,
    limit_s=22 * 60,
)
QUICK = Scope(
    closed={"short": (1, 256), "long": (1, 64), "mix": (64,)},
    bare={"short": (1, 256), "long": (1, 64)},
    open_workloads=("short",),
    open_shares=(0.7,),
    rerank=(2,),
    storm_s=5,
    control=(256,),
    shapes="128x8,16x128,mix",
    dtypes="bfloat16",
    contenders="eager,openvino",
    engine_start_s=20,
    engine_s=2,
    prefixes=(),
    seconds=2,
    rounds=1,
    limit_s=215,
)


@dataclass(frozen=True)
class Turn:
    phase: str
    workload: str
    server: str
    round: int
    seconds: float
    connections: int = 0  # 0: open loop
    share: float = 0.0

    @property
    def takes_s(self) -> float:
        around = WARM_UP_S + AROUND_S
        if self.phase == "storm":  # alone, then with it
            return 2 * (self.seconds + around) + 1
        if self.server.startswith((OURS, BARE)):
            return self.seconds + around
        queued_s = self.connections * TOKENS_ABOUT[self.workload] / DRAINED_TOKENS_PER_SECOND
        extended = EXTENDED if queued_s > self.seconds else 1
        return extended * self.seconds + around + queued_s

    def __str__(self) -> str:
        load = f", {self.connections} connections" if self.connections else ""
        share = f", {self.share:.0%} of capacity" if self.share else ""
        return f"{self.workload}{load}{share}, round {self.round + 1}"


@dataclass(frozen=True)
class Plan:
    scope: Scope
    phases: Sequence[str]
    embedders: Sequence[str]
    rerankers: Sequence[str]

    def turns_of(self, phase: str) -> list[Turn]:
        if phase not in self.phases:
            return []
        made = {"closed": self._closed, "open": self._open, "storm": self._storm, "rerank": self._rerank}
        return list({**made, "control": self._control}[phase]())

    def seconds_of(self, phase: str) -> float:
        scope = self.scope
        match phase:
            case "engine":
                shapes, dtypes = scope.shapes.split(","), scope.dtypes.split(",")
                return scope.engine_start_s + sum(scope.seconds_of_shape(*pair) for pair in product(shapes, dtypes))
            case "prefixes":
                return 10 + len(scope.prefixes) * (2 + 2 * scope.engine_s) if scope.prefixes else 0
        return self.start_seconds_of(phase) + sum(turn.takes_s for turn in self.turns_of(phase))

    def start_seconds_of(self, phase: str) -> float:
        """Returns the seconds until the servers have started and the references are computed. The first phase of
        embedders starts the servers of all."""
        of_embedders = [one for one in ("closed", "open", "storm") if one in self.phases]
        starts = {"rerank": 10 + 6 * len(self.rerankers), "control": 15}
        return starts.get(phase, 25 + 6 * len(self.embedders) if phase in of_embedders[:1] else 0)

    @property
    def seconds(self) -> float:
        return sum(self.seconds_of(phase) for phase in self.phases)

    def fitted(self) -> "Plan":
        """Shortens the turns until the run fits the limit, for instance when there are more servers than usual."""
        plan = self
        while plan.seconds > plan.scope.limit_s and plan.scope.seconds > SECONDS_MIN:
            plan = replace(plan, scope=replace(plan.scope, seconds=plan.scope.seconds - SECONDS_STEP))
        return plan

    def _closed(self) -> Iterator[Turn]:
        scope = self.scope
        for turn in range(scope.rounds):
            for workload, all_connections in scope.closed.items():
                for connections in all_connections:
                    # Next to Heddle, which it is compared with.
                    has_bare = connections in scope.bare.get(workload, ())
                    for server in (*((BARE,) if has_bare else ()), *self.embedders):
                        yield Turn("closed", workload, server, turn, scope.seconds, connections)

    def _open(self) -> Iterator[Turn]:
        for workload in self.scope.open_workloads:
            for share in self.scope.open_shares:
                for server in self.embedders:
                    yield Turn("open", workload, server, 0, self.scope.seconds, share=share)

    def _storm(self) -> Iterator[Turn]:
        for server in self.embedders:
            yield Turn("storm", "storm", server, 0, self.scope.storm_s)

    def _rerank(self) -> Iterator[Turn]:
        for turn in range(self.scope.rounds):
            for connections in self.scope.rerank:
                for server in self.rerankers:
                    yield Turn("rerank", "rerank", server, turn, self.scope.seconds, connections)

    def _control(self) -> Iterator[Turn]:
        for turn in range(self.scope.rounds):
            for connections in self.scope.control:
                yield Turn("control", "short", SIMULATED, turn, self.scope.seconds, connections)
            for server in (ONE_ENGINE, TWO_ENGINES):
                yield Turn("scale", "long", server, turn, self.scope.seconds, 64)
