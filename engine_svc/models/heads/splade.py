"""The head of a sparse embedder: a weight for each word of the vocabulary.

A masked language model predicts for each token which words could stand there. SPLADE (Formal et al. 2021, arXiv
2107.05720 and 2109.10086) takes the sum or the maximum of log(1 + relu(logit)) over all tokens of the text, including
special tokens and the prompt, as sentence-transformers' SparseEncoder with its SpladePooling module does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine_svc.models.heads.head import Array, HeadOutputs
from engine_svc.models.layout import group_by_length
from engine_svc.models.linear import Linear, make_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import Norm
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.weights import Weights
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint.sentence_modules import Splade

# The tokens whose logits exist at once: enough for a fast product, and few enough for the memory. With the 30,522 words
# of BERT in float32, their logits take 31 MB on a CPU and 500 MB on a GPU.
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
        """float32 [vocabulary] each. Most entries are 0, and are left out on the host."""
        transformed = self.norm(self.transform(hidden))
        weights = torch.zeros(len(batch), self.vocabulary_size, device=hidden.device)
        if hidden.is_cuda:
            self._reduce_segments(transformed, tokens.layout.cu_seqlens, batch.cu_seqlens, weights)
        else:
            self._reduce_by_length(transformed, batch.cu_seqlens, weights)
        if not self.splade.sums:
            # The activation is monotonic, so it can be applied to the maximum.
            self._activate(weights)
        if self.splade.active_max is not None:
            weights = keep_largest(weights, self.splade.active_max)
        return HeadOutputs.of(Output.SPARSE_VECTOR, weights, read_entries)

    def _reduce_by_length(self, transformed: Tensor, cu_seqlens: npt.NDArray[np.int32], pooled: Tensor) -> None:
        """Sums or takes the maximum of the tokens of each sequence, into the zeros of `pooled` [B, vocabulary]."""
        for start in range(0, int(cu_seqlens[-1]), SLICE_ROWS_CPU):
            logits = self.decoder(transformed[start : start + SLICE_ROWS_CPU])
            lengths = np.diff(np.clip(cu_seqlens - start, 0, len(logits)))
            for first, values in split_by_length(logits, lengths.tolist()):
                so_far = pooled[first : first + len(values)]
                if self.splade.sums:
                    so_far += self._activate(values.float()).sum(1)
                else:
                    torch.maximum(so_far, values.amax(1), out=so_far)

    def _reduce_segments(
        self, transformed: Tensor, cu_seqlens: Tensor, bounds: npt.NDArray[np.int32], pooled: Tensor
    ) -> None:
        """The same on a GPU, with one kernel for all sequences of a slice. `bounds` is `cu_seqlens` on the host."""
        for start in range(0, int(bounds[-1]), SLICE_ROWS_CUDA):
            stop = min(start + SLICE_ROWS_CUDA, int(bounds[-1]))
            logits = self.decoder(transformed[start:stop])
            first, last = np.searchsorted(bounds, [start, stop - 1], side="right") - 1  # sequences of these tokens
            offsets = cu_seqlens[first : last + 2].clamp(start, stop) - start
            so_far = pooled[first : last + 1]
            if self.splade.sums:
                so_far += reduce_segments(self._activate(logits.float()), "sum", offsets)
            else:
                torch.maximum(so_far, reduce_segments(logits, "max", offsets).float(), out=so_far)

    def _activate(self, values: Tensor) -> Tensor:
        """In place."""
        values.relu_().log1p_()
        return values.log1p_() if self.splade.logs_twice else values


def read_entries(dense: Array) -> Rows:
    """The entries of [B, vocabulary] that are not 0. NaN stays, for the worker to find."""
    sequences, words = dense.nonzero()
    return Rows(dense[sequences, words], np.bincount(sequences, minlength=len(dense)), words)


def split_by_length(logits: Tensor, lengths: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """For each group of adjacent sequences of equal length: the index of its first sequence, and its logits as a view
    [sequences, length, vocabulary]. Leaves out sequences of length 0."""
    first = 0
    for group in group_by_length(lengths, lengths):
        if group.length:
            yield first, logits[group.start_token : group.stop_token].view(group.num_sequences, group.length, -1)
        first += group.num_sequences


def reduce_segments(rows: Tensor, reduce: str, offsets: Tensor) -> Tensor:
    """[segments, width]. "unsafe" leaves out checks that would wait for the device."""
    reduced: Tensor = torch.segment_reduce(rows, reduce, offsets=offsets, axis=0, unsafe=True)
    return reduced


def keep_largest(weights: Tensor, count: int) -> Tensor:
    """Sets all but the `count` largest weights of each row of [B, vocabulary] to 0."""
    kept = weights.topk(min(count, weights.shape[1]), 1)
    return torch.zeros_like(weights).scatter_(1, kept.indices, kept.values)


def load_vocabulary_decoder(
    config: ModelConfig, weights: Weights, name: str, bias: str, words: str = "embeddings.word_embeddings.weight"
) -> Linear:
    """Loads the last linear of a masked language model. Most often it is the table of word embeddings (`words`) again.
    Its bias is its own, or else has the name `bias`. Raises CheckpointError."""
    hidden, vocabulary = config.hidden_size, config.vocab_size
    decoder = f"{name}.weight"
    if config.get("tie_word_embeddings", True) and not weights.has(decoder):
        decoder = words
    own_bias = f"{name}.bias"
    return make_linear(
        weights.load(decoder, [vocabulary, hidden]),
        weights.load(own_bias if weights.has(own_bias) else bias, [vocabulary]),
    )
