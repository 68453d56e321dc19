"""Layouts of sequences that share the rows of equal prefixes, as `PackedTokens` makes them, for tests of attention."""

import numpy as np
import torch

from engine_svc.models.layout import Layout
from engine_svc.models.prefixes import Merging


def merged_layout(layout: Layout, merging: Merging) -> Layout:
    """The same sequences, some of whose tokens share rows."""
    device, own = layout.cu_seqlens.device, merging.own_tokens
    cu_rows = torch.from_numpy(np.concatenate([[0], own.cumsum()]).astype(np.int32)).to(device)
    row_of_token = torch.from_numpy(merging.row_of_token).to(device)
    return Layout(layout.lengths, own.tolist(), layout.cu_seqlens, cu_rows, row_of_token)
