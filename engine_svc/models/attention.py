"""Attention inside each sequence of a packed batch, without padding.

On CUDA one kernel takes the whole batch: a flash kernel that is installed, else our own. On the CPU, and on CUDA
without either, adjacent sequences of equal length are a [sequences, length] view of the packed tokens and run as one
call: a batch sorted by length has the fewest. Sequences never meet in a product or a sum: a NaN stays in its sequence,
and the results alone and in any batch agree to the last bits of float32.
"""

from functools import cache

import torch
from torch import Tensor

from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.dense_attention import attend_densely
from engine_svc.models.flash_attention import Attend, flash_attention
from engine_svc.models.kernels.available import runs_kernels
from engine_svc.models.layout import Layout, Run


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    """Softmax attention of each token to those of its own sequence that the pattern lets it see.

    `query` is [rows, heads, head_dim], `key` and `value` are [rows, key heads, head_dim], strided or not; the result is
    as `query`, contiguous. Rows behind the last token of the layout are 0 in the result on the CPU; on CUDA they have
    any value.
    """
    attends: Attend = attend_by_runs
    if query.is_cuda:
        has_bias, has_softcap = pattern.bias is not None, pattern.softcap is not None
        attends = choose_kernel(query.device, query.dtype, query.shape[-1], has_bias, has_softcap)
    return attends(query, layout.to_tokens(key), layout.to_tokens(value), layout, pattern)


@cache
def choose_kernel(device: torch.device, dtype: torch.dtype, head_dim: int, has_bias: bool, has_softcap: bool) -> Attend:
    flash = None if has_bias else flash_attention(device, dtype, head_dim, has_softcap)
    return flash or our_kernel(device) or attend_by_runs


def our_kernel(device: torch.device) -> Attend | None:
    if not runs_kernels(device):
        return None
    from engine_svc.models.kernels.attention import attend_by_kernel

    return attend_by_kernel


def attend_by_runs(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    result = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    for run in layout.runs:
        if run.own_tokens:
            attended = attend_densely(rows_of(query, run), tokens_of(key, run), tokens_of(value, run), pattern)
            rows_of(result, run).copy_(attended)
    result[layout.runs[-1].stop_row :] = 0
    return result


def tokens_of(tokens: Tensor, run: Run) -> Tensor:
    """View [sequences, heads, length, head_dim] of a run's tokens."""
    return tokens[run.start : run.stop].view(run.sequences, run.length, *tokens.shape[1:]).transpose(1, 2)


def rows_of(rows: Tensor, run: Run) -> Tensor:
    """View [sequences, heads, own tokens, head_dim] of a run's rows."""
    own = rows[run.first_row : run.stop_row]
    return own.view(run.sequences, run.own_tokens, *rows.shape[1:]).transpose(1, 2)
