"""How the sequences of a request are divided into submissions. Pure; `gathering` calls it for all that it sends.

A submission is what engine pods are balanced by, take turns with and retry: large enough that it costs little per
sequence, small enough that a long request spreads over pods and its first answers do not wait for its last.
"""

from typing import NamedTuple

import numpy as np

from tokenizer_svc.token_sequences import Counts, TokenSequences


class Group(NamedTuple):
    """The sequences of one submission."""

    start: int  # index of the first of them in the request
    sequences: TokenSequences


class GroupLimits(NamedTuple):
    sequences_max: int
    tokens_max: int  # a longer sequence goes alone


def groups_of(start: int, sequences: TokenSequences, limits: GroupLimits) -> list[Group]:
    """`start` is the index of the first sequence in the request."""
    ranges = divide(sequences.lengths, sequences.prompt_tokens, limits)
    parts = sequences.split(ranges)
    return [Group(start + range_.start, part) for range_, part in zip(ranges, parts, strict=True)]


def divide(lengths: Counts, prompt_tokens: Counts, limits: GroupLimits) -> list[range]:
    """Ranges of sequences in a row, as large as the limits allow. A submission states `prompt_tokens` once, so that a
    range ends where they change."""
    count = len(lengths)
    if count == 1:
        return [range(1)]
    ends = np.cumsum(lengths, dtype=np.int64)
    ranges: list[range] = []
    start = 0
    for stop in [*(np.flatnonzero(np.diff(prompt_tokens)) + 1).tolist(), count]:
        while start < stop:
            before = int(ends[start - 1]) if start else 0
            fit = int(np.searchsorted(ends, before + limits.tokens_max, side="right"))
            end = max(start + 1, min(fit, start + limits.sequences_max, stop))
            ranges.append(range(start, end))
            start = end
    return ranges
