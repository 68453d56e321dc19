"""Computes prefixes that sequences of a batch share only once: RadixMLP (arXiv 2601.15013).

In a causal model, the hidden states of a token depend only on the tokens up to it. So tokens at the end of equal
prefixes, such as an instruction and a query that are repeated before each document, have equal hidden states in every
layer. Everything that treats tokens one by one (linears, norms, rotary positions) is computed for one row of each such
group, and so are the queries of attention; keys and values are gathered for all tokens. `PackedTokens` calls this.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine_svc.sequences import PackedBatch

# With more rows per token than this, moving rows around costs more than it saves.
ROWS_PER_TOKEN_MAX = 0.9

# Shorter prefixes do not count: special tokens, and instructions of a few words.
PREFIX_TOKENS_MIN = 16


@dataclass(frozen=True, slots=True)
class SharedPrefixes:
    """U rows stand for the T tokens of a batch of B sequences. The rows of a sequence's own tokens, which follow the
    shared ones, lie end to end and in the order of the sequences."""

    row_of_token: npt.NDArray[np.int64]  # [T]
    token_of_row: npt.NDArray[np.int64]  # [U]: the first token that the row stands for
    query_lengths: npt.NDArray[np.int32]  # [B]: own tokens


def find_shared_prefixes(batch: PackedBatch) -> SharedPrefixes | None:
    """None if the sequences share too little."""
    shared = count_shared_tokens(batch)
    if not shared or batch.tokens - sum(count for _, count in shared.values()) > ROWS_PER_TOKEN_MAX * batch.tokens:
        return None
    source = np.arange(batch.tokens)  # the token whose row a token takes
    starts = batch.cu_seqlens
    # In the order of comparison, so that the other sequence has been resolved already.
    for index, (other, count) in shared.items():
        source[starts[index] : starts[index] + count] = source[starts[other] : starts[other] + count]
    token_of_row = np.flatnonzero(source == np.arange(batch.tokens))
    row_of_source = np.zeros(batch.tokens, np.int64)
    row_of_source[token_of_row] = np.arange(len(token_of_row))
    query_lengths = batch.lengths.copy()
    for index, (_, count) in shared.items():
        query_lengths[index] -= count
    return SharedPrefixes(row_of_source[source], token_of_row, query_lengths)


def count_shared_tokens(batch: PackedBatch) -> dict[int, tuple[int, int]]:
    """For each sequence that shares a long enough prefix with another one: that sequence, and the number of tokens.

    In lexicographic order, a sequence shares its longest prefix with its neighbour.
    """
    packed, bounds = batch.token_ids.astype("<u4").tobytes(), (4 * batch.cu_seqlens).tolist()
    ordered = sorted((packed[start:stop], index) for index, (start, stop) in enumerate(itertools.pairwise(bounds)))
    shared: dict[int, tuple[int, int]] = {}
    least = 4 * PREFIX_TOKENS_MIN
    for (before, other), (ids, index) in itertools.pairwise(ordered):
        if before[:least] == ids[:least] and len(before) >= least and len(ids) >= least:
            shared[index] = other, count_common_tokens(before, ids)
    return shared


def count_common_tokens(one: bytes, other: bytes) -> int:
    tokens = min(len(one), len(other)) // 4
    differ = np.frombuffer(one, "<u4", tokens) != np.frombuffer(other, "<u4", tokens)
    return int(differ.argmax()) if differ.any() else tokens
