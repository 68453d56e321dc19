"""The head of a sparse embedder: how much each word of the vocabulary matters to a text.

A masked language model says of each token which words could stand there; SPLADE (Formal et al. 2021, arXiv 2107.05720
and 2109.10086) adds up or takes the maximum of log(1 + relu(logit)) over all tokens of the text, special ones and
prompt included. Equal to sentence-transformers' SparseEncoder with its SpladePooling module.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine_svc.batch import Output, PackedBatch
from engine_svc.models.heads.head import Array, HeadOutputs
from engine_svc.models.layout import runs_of
from engine_svc.models.linear import Linear, linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import Norm
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.weights import Weights
from engine_svc.rows import Rows
from heddle.checkpoint.sentence_modules import Splade

# The logits of a slice of tokens exist at once. Enough rows for a fast product, few enough for the memory: with the
# 30,522 words of BERT in float32, 31 MB on a CPU and 500 MB on a GPU.
SLICE_ROWS_CPU = 256
SLICE_ROWS_CUDA = 4096


@dataclass(frozen=True, slots=True)
class SpladeHead:
    outputs: ClassVar[frozenset[Output]] = frozenset({Output.SPARSE_VECTOR})

    transform: Linear  # hidden to hidden, activation included
    norm: Norm
    decoder: Linear  # hidden to vocabulary
    vocabulary_size: int
    splade: Splade

    def __call__(self, hidden: Tensor, tokens: PackedTokens, batch: PackedBatch) -> HeadOutputs:
        """float32 [vocabulary] each, most of it zeros, which are left out on the host."""
        transformed = self.norm(self.transform(hidden))
        weights = torch.zeros(len(batch), self.vocabulary_size, device=hidden.device)
        if hidden.is_cuda:
            self._reduce_segments(transformed, tokens.layout.cu_seqlens, batch.cu_seqlens, weights)
        else:
            self._reduce_runs(transformed, batch.cu_seqlens, weights)
        if not self.splade.sums:
            # The activation rises with its argument, so it can wait for the maximum.
            self._activated(weights)
        if self.splade.active_max is not None:
            weights = largest(weights, self.splade.active_max)
        return HeadOutputs.of(Output.SPARSE_VECTOR, weights, entries_of)

    def _reduce_runs(self, transformed: Tensor, cu_seqlens: npt.NDArray[np.int32], pooled: Tensor) -> None:
        """Sums or takes the maximum of the tokens of each sequence, into the zeros of `pooled` [B, vocabulary]."""
        for start in range(0, int(cu_seqlens[-1]), SLICE_ROWS_CPU):
            logits = self.decoder(transformed[start : start + SLICE_ROWS_CPU])
            lengths = np.diff(np.clip(cu_seqlens - start, 0, len(logits)))
            for first, values in by_length(logits, lengths.tolist()):
                so_far = pooled[first : first + len(values)]
                if self.splade.sums:
                    so_far += self._activated(values.float()).sum(1)
                else:
                    torch.maximum(so_far, values.amax(1), out=so_far)

    def _reduce_segments(
        self, transformed: Tensor, cu_seqlens: Tensor, bounds: npt.NDArray[np.int32], pooled: Tensor
    ) -> None:
        """The same on a GPU, with one kernel for all sequences of a slice, which goes through the tokens of each one by
        one. `bounds` is `cu_seqlens` on the host."""
        for start in range(0, int(bounds[-1]), SLICE_ROWS_CUDA):
            stop = min(start + SLICE_ROWS_CUDA, int(bounds[-1]))
            logits = self.decoder(transformed[start:stop])
            first, last = np.searchsorted(bounds, [start, stop - 1], side="right") - 1  # sequences of these tokens
            offsets = cu_seqlens[first : last + 2].clamp(start, stop) - start
            so_far = pooled[first : last + 1]
            if self.splade.sums:
                so_far += segments_of(self._activated(logits.float()), "sum", offsets)
            else:
                torch.maximum(so_far, segments_of(logits, "max", offsets).float(), out=so_far)

    def _activated(self, values: Tensor) -> Tensor:
        """In place."""
        values.relu_().log1p_()
        return values.log1p_() if self.splade.logs_twice else values


def entries_of(dense: Array) -> Rows:
    """The entries of [B, vocabulary] that are not 0. NaN is one of them, for the worker to find."""
    sequences, words = dense.nonzero()
    return Rows(dense[sequences, words], np.bincount(sequences, minlength=len(dense)), words)


def by_length(logits: Tensor, lengths: Sequences[int]) -> Iterator[tuple[int, Tensor]]:
    """For each run of adjacent sequences of equal length, which may be 0: the index of its first sequence, and its
    logits as a view [sequences, length, vocabulary]."""
    first = 0
    for run in runs_of(lengths, lengths):
        if run.length:
            yield first, logits[run.start : run.stop].view(run.sequences, run.length, -1)
        first += run.sequences


def segments_of(rows: Tensor, reduce: str, offsets: Tensor) -> Tensor:
    """[segments, width]. "unsafe" leaves out checks that would wait for the device."""
    reduced: Tensor = torch.segment_reduce(rows, reduce, offsets=offsets, axis=0, unsafe=True)
    return reduced


def largest(weights: Tensor, count: int) -> Tensor:
    """Of each row of `weights` [B, vocabulary] the `count` largest, all else 0."""
    kept = weights.topk(min(count, weights.shape[1]), 1)
    return torch.zeros_like(weights).scatter_(1, kept.indices, kept.values)


def load_vocabulary_decoder(
    config: ModelConfig, weights: Weights, name: str, bias: str, words: str = "embeddings.word_embeddings.weight"
) -> Linear:
    """The last linear of a masked language model, most often the table of word embeddings (`words`) once more, with the
    bias of this name unless it has its own. Raises CheckpointError."""
    hidden, vocabulary = config.positive("hidden_size", "dim"), config.positive("vocab_size")
    decoder = f"{name}.weight"
    if config.get("tie_word_embeddings", True) and not weights.has(decoder):
        decoder = words
    own_bias = f"{name}.bias"
    return linear(
        weights.take(decoder, [vocabulary, hidden]),
        weights.take(own_bias if weights.has(own_bias) else bias, [vocabulary]),
    )
