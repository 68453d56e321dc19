"""Prefixes that sequences of a batch share, computed once: RadixMLP (arXiv 2601.15013).

In a causal model a token's hidden states depend on the tokens up to it alone, so that tokens at the end of equal
prefixes, such as an instruction and a query that are repeated before each document, have equal hidden states in every
layer. All that treats tokens one by one (linears, norms, rotary positions) is computed for one row of each such group,
and so are the queries of attention; keys and values are found where the tokens are. `PackedTokens` asks for it.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine_svc.batch import PackedBatch

# Rows per token beyond which moving rows around costs more than it saves.
ROWS_PER_TOKEN_MAX = 0.9

# Prefixes that are shorter are not looked for: special tokens and instructions of a few words.
PREFIX_TOKENS_MIN = 16


@dataclass(frozen=True, slots=True)
class Merging:
    """U rows stand for the T tokens of a batch of B sequences. The rows of a sequence's own tokens, which follow those
    that it shares, lie end to end and in the order of the sequences."""

    row_of_token: npt.NDArray[np.int64]  # [T]
    token_of_row: npt.NDArray[np.int64]  # [U]: the first token that the row stands for
    own_tokens: npt.NDArray[np.int32]  # [B]


def merging_of(batch: PackedBatch) -> Merging | None:
    """None where too little is shared to be worth it."""
    shared = shared_tokens(batch)
    if not shared or batch.tokens - sum(count for _, count in shared.values()) > ROWS_PER_TOKEN_MAX * batch.tokens:
        return None
    stands_for = np.arange(batch.tokens)  # the token whose row it takes
    starts = batch.cu_seqlens
    # In the order in which they were compared, so that the other one has been resolved already.
    for index, (other, count) in shared.items():
        stands_for[starts[index] : starts[index] + count] = stands_for[starts[other] : starts[other] + count]
    token_of_row = np.flatnonzero(stands_for == np.arange(batch.tokens))
    row_of_first = np.zeros(batch.tokens, np.int64)
    row_of_first[token_of_row] = np.arange(len(token_of_row))
    own_tokens = batch.lengths.copy()
    for index, (_, count) in shared.items():
        own_tokens[index] -= count
    return Merging(row_of_first[stands_for], token_of_row, own_tokens)


def shared_tokens(batch: PackedBatch) -> dict[int, tuple[int, int]]:
    """Of each sequence that shares a prefix worth it with another one: which one, and how many tokens.

    In lexicographic order a sequence shares its longest prefix with its neighbour.
    """
    packed, bounds = batch.token_ids.astype("<u4").tobytes(), (4 * batch.cu_seqlens).tolist()
    ordered = sorted((packed[start:stop], index) for index, (start, stop) in enumerate(itertools.pairwise(bounds)))
    shared: dict[int, tuple[int, int]] = {}
    least = 4 * PREFIX_TOKENS_MIN
    for (before, other), (ids, index) in itertools.pairwise(ordered):
        if before[:least] == ids[:least] and len(before) >= least and len(ids) >= least:
            shared[index] = other, common_tokens(before, ids)
    return shared


def common_tokens(one: bytes, other: bytes) -> int:
    tokens = min(len(one), len(other)) // 4
    differ = np.frombuffer(one, "<u4", tokens) != np.frombuffer(other, "<u4", tokens)
    return int(differ.argmax()) if differ.any() else tokens
