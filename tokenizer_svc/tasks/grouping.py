"""Divides the sequences of a request into submissions. `engine_request` calls it.

A submission is the unit of balancing, fairness and retry. It is large enough to cost little per sequence, and small
enough that a long request spreads over pods and gets its first answers early.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

from tokenizer_svc.text.sequences import TokenSequences


class Group(NamedTuple):
    """The sequences of one submission."""

    start: int  # index of the first of them in the request
    sequences: TokenSequences

    @property
    def span(self) -> slice:
        """The places of the sequences in a list of the request's results."""
        return slice(self.start, self.start + len(self.sequences))


class GroupLimits(NamedTuple):
    sequences_max: int
    tokens_max: int  # a longer sequence goes alone


def group_sequences(start: int, sequences: TokenSequences, limits: GroupLimits) -> list[Group]:
    """`start` is the index of the first sequence in its request."""
    ranges = divide(sequences.lengths, sequences.prompt_tokens, limits)
    if len(ranges) == 1:
        return [Group(start, sequences)]
    parts = sequences.split(ranges)
    return [Group(start + range_.start, part) for range_, part in zip(ranges, parts, strict=True)]


def divide(lengths: Sequence[int], prompt_tokens: Sequence[int], limits: GroupLimits) -> list[range]:
    """Divides sequences into ranges, each as large as the limits allow. A submission states `prompt_tokens` once, so a
    range ends where they change."""
    if len(lengths) == 1:
        return [range(1)]
    tokens_before = list(accumulate(lengths, initial=0))
    ranges: list[range] = []
    start = 0
    for stop in run_ends(prompt_tokens):
        while start < stop:
            fit = bisect_right(tokens_before, tokens_before[start] + limits.tokens_max, lo=start + 1) - 1
            end = max(start + 1, min(fit, start + limits.sequences_max, stop))
            ranges.append(range(start, end))
            start = end
    return ranges


def run_ends(numbers: Sequence[int]) -> list[int]:
    """The ends of the runs of equal numbers."""
    if min(numbers) == max(numbers):
        return [len(numbers)]
    return list(accumulate(len(list(run)) for _, run in groupby(numbers)))
