"""The head of bge-m3 (arXiv 2402.03216): dense, sparse and ColBERT vectors from the same hidden states.

The formulas are those of FlagEmbedding's M3Embedder. Sparse: the weight of a token is relu(linear(hidden)); an id that
occurs more than once gets its largest weight; special tokens get none. ColBERT: linear(hidden), normalised, for all
tokens but the first.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.batch import Output, PackedBatch, Sequence
from engine_svc.models.heads.embedding import EmbeddingHead
from engine_svc.models.heads.head import Array, HeadOutputs, Part, by_tokens, joined
from engine_svc.models.heads.vector_modules import Stage
from engine_svc.models.linear import linear
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, hidden_size_of
from heddle.checkpoint_files import CheckpointError


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
        hidden = hidden_size_of(checkpoint.config, checkpoint.folder)
        return cls(
            embedding=EmbeddingHead.load(checkpoint, weights),
            sparse=load_pickled_linear(checkpoint.m3.sparse, 1, hidden, weights.device),
            colbert=load_pickled_linear(checkpoint.m3.colbert, hidden, hidden, weights.device),
            ids_without_weight=np.array(sorted(checkpoint.m3.ids_without_weight), np.int32),
        )

    def __call__(self, hidden: Tensor, tokens: PackedTokens, batch: PackedBatch) -> HeadOutputs:
        parts = {output: self._part(output, hidden, tokens, batch.tokens) for output in tokens.head_inputs.selections}
        return joined(parts, batch.sequences)

    def _part(self, output: Output, hidden: Tensor, tokens: PackedTokens, count: int) -> Part:
        """`count` are the tokens of the batch."""
        selection, rows = tokens.head_inputs.selections[output], hidden[:count]
        match output:
            case Output.SPARSE_VECTOR:
                weights = torch.relu(self.sparse(rows.float()))
                return Part(selection.of(weights), lambda host: self._sparse_vectors(host, selection.sequences))
            case Output.COLBERT_VECTORS:
                projected = selection.of(self._projected(rows, tokens))
                # Without the first token.
                return Part(projected, lambda host: [own[1:] for own in by_tokens(host, selection.sequences)])
            case _:
                return self.embedding.part(output, self.embedding.token_rows(hidden)[:count], tokens)

    def _projected(self, rows: Tensor, tokens: PackedTokens) -> Tensor:
        projected = self.colbert(rows.float())
        normalised = functional.normalize(projected, dim=1)
        skips = tokens.head_inputs.skips_normalization
        if skips is None:
            return normalised
        lengths = tokens.layout.cu_seqlens.diff()
        skips_of_rows = torch.repeat_interleave(skips, lengths, output_size=len(rows))
        return torch.where(skips_of_rows[:, None], projected, normalised)

    def _sparse_vectors(self, weights: Array, sequences: Sequences[Sequence]) -> Iterator[Array]:
        for sequence, own in zip(sequences, by_tokens(weights[:, 0], sequences), strict=True):
            yield self._sparse_vector(np.frombuffer(sequence.token_ids, "<i4"), own)

    def _sparse_vector(self, token_ids: npt.NDArray[np.int32], weights: Array) -> Array:
        """float32 [2, entries]: ascending ids, and the largest weight of each. NaN stays, for the lane to find."""
        ids, places = np.unique(token_ids, return_inverse=True)
        largest = np.zeros(len(ids), np.float32)
        with np.errstate(invalid="ignore"):
            np.maximum.at(largest, places, weights)
        kept = ~(largest <= 0) & ~np.isin(ids, self.ids_without_weight)
        return np.stack([ids[kept].astype(np.float32), largest[kept]])


def load_pickled_linear(path: Path, outputs: int, inputs: int, device: torch.device) -> Stage:
    """Loads a linear in float32. Never runs code of the file: raises CheckpointError if it holds anything but tensors
    of these shapes."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - the errors of broken files have no common base
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} cannot be read: {reason}") from None
    weight, bias = tensor_of(state, "weight", [outputs, inputs], path), tensor_of(state, "bias", [outputs], path)
    return linear(weight.to(device, torch.float32), bias.to(device, torch.float32))


def tensor_of(state: object, name: str, shape: Sequences[int], path: Path) -> Tensor:
    tensor = state.get(name) if isinstance(state, dict) else None
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"{path} has no tensor {name}")
    if list(tensor.shape) != list(shape):
        raise CheckpointError(f"{path}: tensor {name} has shape {list(tensor.shape)}, expected {list(shape)}")
    return tensor
