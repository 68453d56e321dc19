"""Shared prefixes: a batch has one row for each distinct prefix, and outputs do not change."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import Qwen3Model

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models import packed_tokens
from engine_svc.models.model import Model
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.prefixes import PREFIX_TOKENS_MIN, ROWS_PER_TOKEN_MAX, find_shared_prefixes
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint import Checkpoint
from tests.checkpoints import VOCABULARY_SIZE
from tests.engine_svc.models.cases import save
from tests.engine_svc.models.cases_of.decoders import small
from tests.sequences import Sequence, packed, run_each, sequences_of

Ids = list[int]

LONG = list(range(240, 290))  # from one byte to two, so that the order of the bytes is not that of the numbers

# What sequences have in common, then a few tokens of their own.
STARTS = st.sampled_from([[], LONG[:5], LONG[:15], LONG[:16], LONG[:17], LONG, [*LONG[:20], *LONG[:9]], [7] * 30])
SEQUENCES = st.builds(lambda start, own: [*start, *own], STARTS, st.lists(st.integers(0, 600), max_size=5)).filter(bool)


def make_batch(sequences: Iterable[Ids], output: Output = Output.TOKEN_VECTORS) -> PackedBatch:
    return packed([Sequence(np.array(ids, "<u4").tobytes(), output=output) for ids in sequences])


def list_prefixes(sequences: list[Ids]) -> list[tuple[object, ...]]:
    """For each token, what must be equal for two tokens to share a row: all tokens up to it, and a sequence long enough
    to be compared. Tokens of shorter sequences share nothing."""
    prefixes: list[tuple[object, ...]] = []
    for index, ids in enumerate(sequences):
        start = tuple(ids[:PREFIX_TOKENS_MIN]) if len(ids) >= PREFIX_TOKENS_MIN else index
        prefixes.extend((start, tuple(ids[: count + 1])) for count in range(len(ids)))
    return prefixes


@settings(max_examples=300, deadline=None)
@given(st.lists(SEQUENCES, min_size=1, max_size=12))
@example([LONG, LONG, LONG])
@example([LONG[:16], LONG[:20], LONG[:30], LONG])
@example([LONG[:20], [*LONG[:17], 1], LONG])
@example([LONG[:15], LONG[:15]])
def test_rows_are_the_distinct_prefixes(sequences: list[Ids]) -> None:
    batch, prefixes = make_batch(sequences), list_prefixes(sequences)
    prefix_rows = find_shared_prefixes(batch)
    distinct = len(set(prefixes))
    is_worth_it = distinct <= ROWS_PER_TOKEN_MAX * batch.tokens
    assert (prefix_rows is not None) == is_worth_it
    if prefix_rows is None:
        return
    assert len(prefix_rows.token_of_row) == distinct
    for token, row in enumerate(prefix_rows.row_of_token):
        assert prefixes[token] == prefixes[prefix_rows.token_of_row[row]]


@settings(max_examples=100, deadline=None)
@given(st.lists(SEQUENCES, min_size=2, max_size=12))
def test_columns_come_back_from_their_rows(sequences: list[Ids]) -> None:
    batch = make_batch([*sequences, LONG, LONG, LONG, LONG])
    prefix_rows = find_shared_prefixes(batch)
    assert prefix_rows is not None
    for column in (batch.token_ids, batch.positions):
        np.testing.assert_array_equal(column[prefix_rows.token_of_row][prefix_rows.row_of_token], column)


@settings(max_examples=100, deadline=None)
@given(st.lists(SEQUENCES, min_size=2, max_size=12))
def test_own_tokens_follow_the_shared_ones_and_lie_end_to_end(sequences: list[Ids]) -> None:
    batch = make_batch([*sequences, LONG, LONG, LONG, LONG])
    prefix_rows = find_shared_prefixes(batch)
    assert prefix_rows is not None
    own = [
        token
        for stop, count in zip(batch.cu_seqlens[1:], prefix_rows.query_lengths, strict=True)
        for token in range(stop - count, stop)
    ]
    assert prefix_rows.token_of_row.tolist() == own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save(small(Qwen3Model), folder)
    return folder


def random_ids(count: int, seed: int) -> Ids:
    return np.random.default_rng(seed).integers(0, VOCABULARY_SIZE, count).tolist()  # type: ignore[no-any-return]


START = random_ids(40, 100)

BATCHES = {
    "nothing shared": [random_ids(length, length) for length in (1, 17, 30, 31, 64)],
    "16 tokens": [[*START[:16], *random_ids(length, length)] for length in (1, 2, 3, 3, 8, 24)],
    "40 tokens": [[*START, *random_ids(length, length)] for length in (1, 2, 2, 3, 24)],
    "nested prefixes": [[*START[:count], *random_ids(4, count)] for count in (16, 16, 24, 24, 39, 40, 40)],
    "equal sequences": [START, START, random_ids(20, 1), START],
    "prefixes of each other": [START[:count] for count in (40, 16, 20, 40, 39, 17)],
    "two groups and others": [
        *[[*START[:20], n] for n in range(4)],
        *[[*START[20:], n] for n in range(4)],
        [3],
        [5, 3],
    ],
}
SHARED = BATCHES.keys() - {"nothing shared"}


@torch.inference_mode()
def hidden_states(folder: Path, batch: PackedBatch, dtype: torch.dtype, *, shares: bool) -> tuple[Tensor, int]:
    """The hidden states of all tokens, and the number of rows that were computed."""
    device = torch.device("cpu")
    transformer = Model.load(Checkpoint.read(folder), dtype=dtype, device=device).transformer
    tokens = PackedTokens.of(batch, device=device, dtype=dtype, share_prefixes=shares)
    return tokens.gather_tokens(transformer(tokens))[: batch.tokens].float(), len(tokens.ids)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_sharing_changes_no_output(folder: Path, name: str, dtype: torch.dtype, tolerance: float) -> None:
    batch = make_batch(sorted(BATCHES[name], key=len))
    shared, rows = hidden_states(folder, batch, dtype, shares=True)
    apart, rows_apart = hidden_states(folder, batch, dtype, shares=False)
    torch.testing.assert_close(shared, apart, atol=tolerance, rtol=0)
    assert (rows < rows_apart) == (name in SHARED)


@pytest.mark.parametrize("name", BATCHES)
def test_backend_answers_each_sequence_as_alone(folder: Path, name: str) -> None:
    backend = TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu")
    batch = make_batch(BATCHES[name], Output.VECTOR)
    apart = run_each(TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu", share_prefixes=False), batch)
    np.testing.assert_allclose(np.stack(run_each(backend, batch)), np.stack(apart), atol=1e-5, rtol=0)
    for together, sequence in zip(run_each(backend, batch), sequences_of(batch), strict=True):
        [alone] = run_each(backend, packed([sequence]))
        np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "sequences",
    [
        [[*START[:15], 1], [*START[:15], 2]],  # less than is looked for
        [[*START[:16], *random_ids(200, 1)], [*START[:16], *random_ids(200, 2)]],  # too few of all
        [START],
    ],
)
def test_few_shared_tokens_switch_nothing_on(sequences: list[Ids]) -> None:
    assert find_shared_prefixes(make_batch(sequences)) is None


def test_sharing_can_be_switched_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(batch: PackedBatch) -> None:
        raise AssertionError("shared all the same")

    monkeypatch.setattr(packed_tokens, "find_shared_prefixes", shared)
    batch = make_batch(BATCHES["40 tokens"], Output.VECTOR)
    run_each(TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu", share_prefixes=False), batch)
    with pytest.raises(AssertionError, match="shared all the same"):
        run_each(TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu"), batch)


def test_model_that_sees_the_whole_text_shares_nothing(tmp_path: Path) -> None:
    """The hidden states of a token depend on the tokens after it."""
    save(small(Qwen3Model, is_causal=False), tmp_path)
    backend = TorchBackend(Checkpoint.read(tmp_path), dtype="float32", device="cpu")
    one, other = [*START, 1], [*START, 2]
    together = run_each(backend, make_batch([one, other, one, other]))
    np.testing.assert_allclose(together[0], run_each(backend, make_batch([one]))[0], atol=1e-5)
    assert np.abs(together[0][0] - together[1][0]).max() > 1e-3
