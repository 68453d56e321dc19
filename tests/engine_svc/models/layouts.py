"""Layouts of sequences, for the tests of attention. Needs torch only, as the measurements of `tests.gpu` do."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from engine_svc.models.layout import Layout
from engine_svc.models.prefixes import SharedPrefixes


def make_layout(lengths: Sequence[int], device: torch.device | None = None) -> Layout:
    return Layout.of(lengths, accumulate(lengths, device))


def accumulate(lengths: Sequence[int], device: torch.device | None = None) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device)


def make_shared_layout(layout: Layout, prefixes: SharedPrefixes) -> Layout:
    """The same sequences, some of whose tokens share rows, as `PackedTokens` makes it."""
    query_lengths, device = prefixes.query_lengths.tolist(), layout.cu_seqlens.device
    row_of_token = torch.from_numpy(prefixes.row_of_token).to(device)
    return Layout(layout.lengths, query_lengths, layout.cu_seqlens, accumulate(query_lengths, device), row_of_token)
