"""The report of a build: its size, its speed, and how close its outputs are to those of the source.
`engine_svc.build.comparison` makes it; `heddle build` prints it and stores it in the manifest. Imports no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from heddle.progress import spelled_size

# Warn below this cosine, or above this difference of scores, which range from 0 to 1.
COSINE_MIN = 0.95
DIFFERENCE_MAX = 0.1

TEXT_START = 60  # characters

# Digits that do not differ between CPUs with the same number formats.
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Size:
    files: int  # bytes of the weight files
    memory: int  # bytes of the weights on the device


@dataclass(frozen=True, slots=True)
class Closeness:
    """Cosines between the outputs of source and result for the same text."""

    mean: float
    worst: float
    worst_text: str


@dataclass(frozen=True, slots=True)
class Scores:
    """Differences between the scores of source and result, which range from 0 to 1."""

    mean_difference: float
    largest_difference: float
    largest_text: str
    agreement: float  # rank correlation if `is_ranking`, else the share of texts or tokens with the same best label
    is_ranking: bool


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second."""

    source: float
    built: float


@dataclass(frozen=True, slots=True)
class Report:
    quantization: str
    texts: int
    source: Size
    built: Size
    cosine: Closeness | None = None  # of embedders
    scores: Scores | None = None  # of rerankers and classifiers
    speed: Speed | None = None

    def to_json(self) -> Mapping[str, Any]:
        """Leaves out times and rounds numbers, so that equal builds have equal manifests."""
        values = {name: value for name, value in asdict(self).items() if name != "speed" and value is not None}
        return {name: round_values(value) for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Reads what `to_json` made. Raises TypeError and KeyError for anything else."""
        cosine, scores = values.get("cosine"), values.get("scores")
        return cls(
            quantization=values["quantization"],
            texts=values["texts"],
            source=Size(**values["source"]),
            built=Size(**values["built"]),
            cosine=None if cosine is None else Closeness(**cosine),
            scores=None if scores is None else Scores(**scores),
        )

    def to_table(self) -> str:
        """Lines for a terminal."""
        rows = [
            ("", "source", "built", ""),
            ("weight files", *self._describe_sizes(self.source.files, self.built.files)),
            ("in memory", *self._describe_sizes(self.source.memory, self.built.memory)),
        ]
        if self.speed is not None:
            ratio = f"{self.speed.built / self.speed.source:.2f} times"
            rows.append(("tokens/s", f"{self.speed.source:,.0f}", f"{self.speed.built:,.0f}", ratio))
        lines = [f"{name:<14}{source:>12}{built:>12}  {change}".rstrip() for name, source, built, change in rows]
        return "\n".join([*lines, *self._describe_outputs()])

    def warning(self) -> str | None:
        """Returns a line for the operator if the outputs changed too much, else None."""
        if self.cosine is not None and not self.cosine.worst >= COSINE_MIN:
            return (
                f"{self.quantization} changes vectors a lot: the cosine to the source falls to {self.cosine.worst:.3f} "
                f"(below {COSINE_MIN}); compare the model on your own data, or use another quantization"
            )
        if self.scores is not None and not self.scores.largest_difference <= DIFFERENCE_MAX:
            return (
                f"{self.quantization} changes scores a lot: by up to {self.scores.largest_difference:.3f} (more than "
                f"{DIFFERENCE_MAX}); compare the model on your own data, or use another quantization"
            )
        return None

    def _describe_sizes(self, source: int, built: int) -> tuple[str, str, str]:
        return spelled_size(source), spelled_size(built), f"{100 * built / max(1, source) - 100:+.0f} %"

    def _describe_outputs(self) -> Iterator[str]:
        if self.cosine is not None:
            yield f"cosine to the source on {self.texts} other texts: mean {self.cosine.mean:.4f}"
            yield f"  worst {self.cosine.worst:.4f}: {shorten(self.cosine.worst_text)}"
        if self.scores is not None:
            kind = "rank correlation" if self.scores.is_ranking else "same best label"
            yield (
                f"scores against the source on {self.texts} other texts: mean difference "
                f"{self.scores.mean_difference:.4f}, {kind} {self.scores.agreement:.4f}"
            )
            yield f"  largest difference {self.scores.largest_difference:.4f}: {shorten(self.scores.largest_text)}"


def round_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: round_values(own) for name, own in value.items()}
    if isinstance(value, float):
        return round(value, DIGITS)
    return shorten(value) if isinstance(value, str) else value


def shorten(text: str) -> str:
    return text if len(text) <= TEXT_START else f"{text[: TEXT_START - 1].rstrip()}…"
