"""The throughput that the engine aims at on an H100 or H200, and the table that compares a run with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.gpu.record import Row, read_rows

EMBEDDER_8B = "Qwen3-Embedding-8B"


@dataclass(frozen=True)
class Aim:
    text: str
    model: str
    format: str
    tokens: int
    figure: str  # column of the step `throughput`
    limit: float
    is_most: bool = False  # the limit is an upper one
    sequences: int | None = None  # of a batch; None = the best of all batches

    def measured(self, rows: Sequence[Row]) -> float | None:
        best: Callable[[list[float]], float] = min if self.is_most else max
        found = [row[self.figure] for row in rows if self.applies_to(row)]
        return best(found) if found else None

    def applies_to(self, row: Row) -> bool:
        named = (row.get("model"), row.get("format"), row.get("tokens"))
        is_own = named == (self.model, self.format, self.tokens) and self.figure in row
        return is_own and self.sequences in (None, row["sequences"])

    def is_met(self, value: float) -> bool:
        return value <= self.limit if self.is_most else value >= self.limit


AIMS = (
    Aim("8B, 500 tokens, tokens/s", EMBEDDER_8B, "bfloat16", 500, "tokens_s", 47_549),
    Aim("8B, 500 tokens, tokens/s", EMBEDDER_8B, "fp8", 500, "tokens_s", 77_107),
    Aim("8B, 500 tokens, share of the ceiling", EMBEDDER_8B, "bfloat16", 500, "share_of_ceiling", 0.85),
    Aim("8B, 500 tokens, share of the ceiling", EMBEDDER_8B, "fp8", 500, "share_of_ceiling", 0.85),
    Aim("8B, 5 tokens, requests/s", EMBEDDER_8B, "bfloat16", 5, "requests_s", 856),
    Aim(
        "8B, one of 5 tokens, times of reading the weights",
        *(EMBEDDER_8B, "bfloat16", 5, "times_of_reading_the_weights", 1.3),
        is_most=True,
        sequences=1,
    ),
    Aim("MiniLM, 5 tokens, requests/s", "all-MiniLM", "float16", 5, "requests_s", 20_000),
)


def compare_with_aims(folder: Path) -> list[Row]:
    rows = read_rows(folder, "throughput")
    return [make_row(aim, aim.measured(rows)) for aim in AIMS]


def make_row(aim: Aim, value: float | None) -> Row:
    return {
        "aim": aim.text,
        "format": aim.format,
        "wanted": f"{'at most' if aim.is_most else 'at least'} {aim.limit:,}",
        "measured": "not measured" if value is None else value,
        "verdict": "" if value is None else "met" if aim.is_met(value) else "missed",
    }
