"""The head of bge-m3 (arXiv 2402.03216): dense, sparse and ColBERT vectors from the same hidden states.

The formulas are those of FlagEmbedding's M3Embedder. Sparse: the weight of a token is relu(linear(hidden)); an id that
occurs more than once gets its largest weight; special tokens get none. ColBERT: linear(hidden), normalized, for all
tokens but the first.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.heads.embedding import EmbeddingHead
from engine_svc.models.heads.head import Array, HeadOutputs, Part, join_parts
from engine_svc.models.heads.vector_modules import Stage
from engine_svc.models.linear import make_linear
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.stored_tensors import open_weight_file
from engine_svc.models.weights import Weights
from engine_svc.rows import Rows, ranges
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint.checkpoint import Checkpoint, get_hidden_size
from heddle.checkpoint.json_files import CheckpointError


@dataclass(frozen=True, slots=True)
class M3Head:
    outputs: ClassVar[frozenset[Output]] = frozenset(
        {Output.VECTOR, Output.TOKEN_VECTORS, Output.SPARSE_VECTOR, Output.COLBERT_VECTORS}
    )

    embedding: EmbeddingHead
    sparse: Stage  # hidden to 1
    colbert: Stage  # hidden to hidden
    ids_without_weight: npt.NDArray[np.int32]

    @classmethod
    def load(cls, checkpoint: Checkpoint, weights: Weights) -> "M3Head":
        """Raises CheckpointError."""
        assert checkpoint.m3 is not None
        hidden = get_hidden_size(checkpoint.config, checkpoint.folder)
        return cls(
            embedding=EmbeddingHead.load(checkpoint, weights),
            sparse=load_linear_file(checkpoint.m3.sparse, 1, hidden, weights.device),
            colbert=load_linear_file(checkpoint.m3.colbert, hidden, hidden, weights.device),
            ids_without_weight=np.array(sorted(checkpoint.m3.ids_without_weight), np.int32),
        )

    def __call__(self, hidden: Tensor, tokens: PackedTokens, batch: PackedBatch) -> HeadOutputs:
        return join_parts(
            {output: self._compute(output, hidden, tokens, batch) for output in tokens.head_inputs.selections}
        )

    def _compute(self, output: Output, hidden: Tensor, tokens: PackedTokens, batch: PackedBatch) -> Part:
        selection, rows = tokens.head_inputs.selections[output], hidden[: batch.tokens]
        match output:
            case Output.SPARSE_VECTOR:
                weights = torch.relu(self.sparse(rows.float()))
                ids = batch.token_ids[ranges(batch.cu_seqlens[selection.indices], selection.lengths)]
                return Part(
                    selection.select(weights), lambda host: self._read_sparse(host[:, 0], ids, selection.lengths)
                )
            case Output.COLBERT_VECTORS:
                return Part(
                    selection.select(self._project(rows, tokens)),
                    lambda host: read_without_first(host, selection.lengths),
                )
            case _:
                return self.embedding.compute(output, self.embedding.token_rows(hidden)[: batch.tokens], tokens)

    def _project(self, rows: Tensor, tokens: PackedTokens) -> Tensor:
        projected = self.colbert(rows.float())
        normalized = functional.normalize(projected, dim=1)
        skip = tokens.head_inputs.skip_normalization
        if skip is None:
            return normalized
        lengths = tokens.layout.cu_seqlens.diff()
        skip_of_row = torch.repeat_interleave(skip, lengths, output_size=len(rows))
        return torch.where(skip_of_row[:, None], projected, normalized)

    def _read_sparse(self, weights: Array, ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.integer]) -> Rows:
        """The largest weight of each id of a sequence. NaN stays, for the worker to find."""
        sequences = np.repeat(np.arange(len(lengths)), lengths)
        entries = sequences << 32 | ids
        order = np.argsort(entries, kind="stable")
        entries = entries[order]
        firsts = np.flatnonzero(np.diff(entries, prepend=-1))
        with np.errstate(invalid="ignore"):
            largest = np.maximum.reduceat(weights[order], firsts)
        words, sequences = ids[order[firsts]], sequences[order[firsts]]
        kept = ~(largest <= 0) & ~np.isin(words, self.ids_without_weight)
        return Rows(largest[kept], np.bincount(sequences[kept], minlength=len(lengths)), words[kept])


def read_without_first(rows: Array, lengths: npt.NDArray[np.integer]) -> Rows:
    """Leaves out the row of each sequence's first token."""
    starts = np.cumsum(lengths) - lengths
    return Rows(np.delete(rows, starts, axis=0), lengths - 1)


def load_linear_file(path: Path, outputs: int, inputs: int, device: torch.device) -> Stage:
    """Loads a linear in float32. Never runs code of the file: raises CheckpointError if it holds anything but tensors
    of these shapes."""
    tensors = open_weight_file(path)
    shapes = {"weight": [outputs, inputs], "bias": [outputs]}
    for name, shape in shapes.items():
        if name not in tensors:
            raise CheckpointError(f"{path} has no tensor {name}")
        tensors[name].check(shape)
    weight, bias = (tensors[name].read(...).to(device, torch.float32, copy=True) for name in shapes)
    return make_linear(weight, bias)
