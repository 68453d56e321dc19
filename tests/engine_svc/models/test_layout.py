"""Where the sequences of a batch lie: groups of equal lengths, and rounded maxima for kernels that take all of them."""

import numpy as np
import pytest
import torch

from engine_svc.models.layout import EqualLengths, Layout, round_up_length
from engine_svc.models.prefixes import SharedPrefixes
from tests.engine_svc.models.layouts import make_layout, make_shared_layout


def test_adjacent_sequences_of_equal_length_are_one_group() -> None:
    assert make_layout([1, 1, 1, 5, 5, 40, 5]).groups == (
        EqualLengths(0, 0, 3, 1, 1),
        EqualLengths(3, 3, 2, 5, 5),
        EqualLengths(13, 13, 1, 40, 40),
        EqualLengths(53, 53, 1, 5, 5),
    )


def test_shared_layout_knows_where_own_tokens_are() -> None:
    layout = make_shared_layout(
        make_layout([5, 5, 5, 7]), SharedPrefixes(np.arange(22), np.arange(22), np.array([5, 2, 2, 0], np.int32))
    )
    assert layout.groups == (EqualLengths(0, 0, 1, 5, 5), EqualLengths(5, 5, 2, 5, 2), EqualLengths(15, 9, 1, 7, 0))
    assert layout.cu_seqlens_q.tolist() == [0, 5, 7, 9, 9]
    assert (layout.num_tokens, layout.max_length) == (22, 7)


def test_kernels_get_the_same_tensor_twice_where_nothing_is_shared() -> None:
    """Then PyTorch may use cuDNN."""
    layout = make_layout([3, 4])
    assert layout.cu_seqlens_q is layout.cu_seqlens


@pytest.mark.parametrize(("length", "rounded"), [(1, 16), (16, 16), (17, 32), (512, 512), (513, 1024), (8192, 8192)])
def test_maximum_lengths_are_rounded_up_to_powers_of_two(length: int, rounded: int) -> None:
    assert round_up_length(length) == rounded
    assert make_layout([1, length]).max_seqlen_k == rounded


def test_rows_and_tokens_have_their_own_maximum() -> None:
    cu_seqlens = torch.tensor([0, 100, 200], dtype=torch.int32)
    cu_seqlens_q = torch.tensor([0, 100, 130], dtype=torch.int32)
    layout = Layout([100, 100], [30, 20], cu_seqlens, cu_seqlens_q, torch.arange(200))
    assert (layout.max_seqlen_q, layout.max_seqlen_k) == (32, 128)
