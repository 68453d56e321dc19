"""The head of bge-m3 (arXiv 2402.03216): dense, sparse and ColBERT vectors from the same hidden states.

The formulas are those of FlagEmbedding's M3Embedder. Sparse: the weight of a token is relu(linear(hidden)); an id that
occurs more than once gets its largest weight; special tokens get none. ColBERT: linear(hidden), normalised, for all
tokens but the first.
"""

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
from engine_svc.models.heads.embedding import EmbeddingHead, copy_to_host
from engine_svc.models.heads.head import Array
from engine_svc.models.heads.vector_modules import Stage
from engine_svc.models.linear import linear
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

    def __call__(self, hidden: Tensor, cu_seqlens: Tensor, batch: PackedBatch) -> list[Array]:
        wanted = {output for sequence in batch.sequences for output in sequence.outputs}
        rows = hidden[: batch.tokens]
        weights = torch.relu(self.sparse(rows.float())).squeeze(1) if Output.SPARSE_VECTOR in wanted else rows
        projected = self.colbert(rows.float()) if Output.COLBERT_VECTORS in wanted else rows
        token_rows = self.embedding.token_rows(hidden)
        vectors = self.embedding.vectors(token_rows, cu_seqlens, batch.sequences)
        pairs = [
            (index, sequence, output) for index, sequence in enumerate(batch.sequences) for output in sequence.outputs
        ]
        starts = batch.cu_seqlens.tolist()

        def part(index: int, sequence: Sequence, output: Output) -> Tensor:
            start, stop = starts[index : index + 2]
            match output:
                case Output.SPARSE_VECTOR:
                    return weights[start:stop]
                case Output.COLBERT_VECTORS:
                    own = projected[start + 1 : stop]
                    return own if sequence.skip_normalization else functional.normalize(own, dim=1)
                case _:
                    return self.embedding.part(token_rows[start:stop], vectors[index], sequence, output)

        arrays = copy_to_host([part(*pair) for pair in pairs])
        return [
            self._sparse_vector(batch.token_ids[starts[index] : starts[index + 1]], array)
            if output is Output.SPARSE_VECTOR
            else array
            for (index, _, output), array in zip(pairs, arrays, strict=True)
        ]

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
