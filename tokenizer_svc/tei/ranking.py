"""The order in which TEI answers what it scored."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Scored(Protocol):
    score: float


AnyScored = TypeVar("AnyScored", bound=Scored)


def best_first(scored: Iterable[AnyScored]) -> list[AnyScored]:
    """By score, descending; of equal scores the later one first, as TEI has it."""
    return sorted(scored, key=lambda one: one.score)[::-1]
