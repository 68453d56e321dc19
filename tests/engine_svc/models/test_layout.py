"""Where the sequences of a batch lie: runs of equal lengths, and buckets for kernels that take all of them."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from engine_svc.models.layout import Layout, Run, bucket_of
from engine_svc.models.prefixes import Merging
from tests.engine_svc.models.merged_layouts import merged_layout


def layout_of(lengths: Sequence[int]) -> Layout:
    return Layout.of(lengths, torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32))


def test_adjacent_sequences_of_equal_length_are_one_run() -> None:
    assert layout_of([1, 1, 1, 5, 5, 40, 5]).runs == (
        Run(0, 0, 3, 1, 1),
        Run(3, 3, 2, 5, 5),
        Run(13, 13, 1, 40, 40),
        Run(53, 53, 1, 5, 5),
    )


def test_merged_layout_knows_where_own_tokens_are() -> None:
    layout = merged_layout(
        layout_of([5, 5, 5, 7]), Merging(np.arange(22), np.arange(22), np.array([5, 2, 2, 0], np.int32))
    )
    assert layout.runs == (Run(0, 0, 1, 5, 5), Run(5, 5, 2, 5, 2), Run(15, 9, 1, 7, 0))
    assert layout.cu_rows.tolist() == [0, 5, 7, 9, 9]
    assert (layout.tokens, layout.length_max) == (22, 7)


def test_kernels_get_the_same_tensor_twice_where_nothing_is_merged() -> None:
    """With it, PyTorch may use cuDNN."""
    layout = layout_of([3, 4])
    assert layout.cu_rows is layout.cu_seqlens


@pytest.mark.parametrize(("length", "bucket"), [(1, 16), (16, 16), (17, 32), (512, 512), (513, 1024), (8192, 8192)])
def test_buckets_are_powers_of_two(length: int, bucket: int) -> None:
    assert bucket_of(length) == bucket
    assert layout_of([1, length]).key_bucket == bucket


def test_rows_and_tokens_have_buckets_of_their_own() -> None:
    cu_seqlens = torch.tensor([0, 100, 200], dtype=torch.int32)
    cu_rows = torch.tensor([0, 100, 130], dtype=torch.int32)
    layout = Layout([100, 100], [30, 20], cu_seqlens, cu_rows, torch.arange(200))
    assert (layout.query_bucket, layout.key_bucket) == (32, 128)
