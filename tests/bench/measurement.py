"""The figures of one turn. measurements.json holds all turns; the report and the plots are made from it."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OURS = "Heddle"
BARE = "bare engine"
CEILING = "ceiling"


@dataclass(frozen=True)
class Measurement:
    phase: str  # closed, open, storm, rerank, control, scale
    workload: str
    server: str
    round: int
    connections: int  # 0 in open loop
    share: float  # of the server's own capacity in open loop; 0 in closed loop
    seconds: float
    answers: int
    inputs: int  # texts or pairs in those answers
    tokens: int  # in those answers, after the model's limit; 0 where they are not counted
    errors: int = 0  # answers that are not a 200
    unanswered: int = 0  # open loop: due and not answered; their wait so far is among the latencies
    checked: int = 0  # compared with the reference; a wrong one ends the run
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_us: dict[str, float] = field(default_factory=dict)  # per answer, by process

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def load(self) -> str:
        return f"{self.connections} connections" if self.connections else f"{self.share:.0%} of capacity"


@dataclass(frozen=True)
class EngineFigure:
    """Tokens per second of one contender for one shape of batch, in one number format."""

    dtype: str
    shape: str
    contender: str
    tokens_per_second: float


@dataclass(frozen=True)
class PrefixFigure:
    """Seconds for documents behind a shared prefix: computed once, and each time."""

    prefix_tokens: int
    once_s: float
    each_time_s: float


@dataclass
class Results:
    machine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # such as the peers that were skipped, and why
    measurements: list[Measurement] = field(default_factory=list)
    engine: list[EngineFigure] = field(default_factory=list)
    prefixes: list[PrefixFigure] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rounded(dataclasses.asdict(self)), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Results":
        content = json.loads(path.read_text())
        return cls(
            machine=content["machine"],
            settings=content["settings"],
            notes=content["notes"],
            measurements=[Measurement(**one) for one in content["measurements"]],
            engine=[EngineFigure(**one) for one in content["engine"]],
            prefixes=[PrefixFigure(**one) for one in content["prefixes"]],
        )


def rounded(value: Any) -> Any:
    """Rounds to five digits, more than any measurement is accurate to, to keep the file small."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return value
