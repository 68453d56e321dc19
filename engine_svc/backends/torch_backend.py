"""The backend that runs the models of `engine_svc.models` with PyTorch, on a CPU or an NVIDIA GPU."""

import itertools
from collections.abc import Sequence as Sequences

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine_svc.backends.host_memory import keep_freed_memory
from engine_svc.batch import Output, PackedBatch, Sequence
from engine_svc.models.architectures import load_encoder
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.pooling import finish, pool
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint_files import CheckpointError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Array = npt.NDArray[np.float32]


class TorchBackend:
    """An embedding model. See engine_svc.backends.backend.Backend for who may call it, and when."""

    def __init__(self, checkpoint: Checkpoint, *, dtype: str = "auto", threads: int = 0, device: str = "auto") -> None:
        """`dtype` is auto, float32, bfloat16 or float16. `threads` of the CPU are for the whole process; 0 leaves
        PyTorch's choice, one per core. `device` is auto, cpu or cuda. Raises CheckpointError."""
        if checkpoint.kind is not ModelKind.EMBEDDER:
            raise CheckpointError(f"{checkpoint.folder} is a {checkpoint.kind}, which this backend does not run")
        if threads:
            torch.set_num_threads(threads)
        self._device = device_of(device)
        if self._device.type == "cpu":
            keep_freed_memory()
        self._dtype = fastest_dtype(self._device) if dtype == "auto" else DTYPES[dtype]
        self._pooling = checkpoint.pooling
        self._dimension = checkpoint.dimension
        self._encoder = load_encoder(checkpoint, dtype=self._dtype, device=self._device)

    @property
    def outputs(self) -> frozenset[Output]:
        return frozenset({Output.VECTOR, Output.TOKEN_VECTORS})

    @property
    def data_type(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    def run(self, batch: PackedBatch) -> Sequences[Array]:
        """Vectors float32 [dimensions], token vectors float32 [tokens, hidden]."""
        # Attention makes one call for all sequences of a length.
        order = np.argsort(batch.lengths, kind="stable")
        by_length = PackedBatch.of([batch.sequences[index] for index in order])
        arrays: list[Array] = [np.empty(0, np.float32)] * len(order)
        for index, array in zip(order, self._run_by_length(by_length), strict=True):
            arrays[index] = array
        return arrays

    def close(self) -> None:
        del self._encoder
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _run_by_length(self, batch: PackedBatch) -> list[Array]:
        tokens = PackedTokens.of(batch, head_dim=self._encoder.head_dim, device=self._device, dtype=self._dtype)
        hidden = self._encoder(tokens)
        vectors = self._vectors(hidden, tokens.layout.cu_seqlens, batch.sequences)
        if any(sequence.output is Output.TOKEN_VECTORS for sequence in batch.sequences):
            return mixed_arrays(batch, vectors, hidden)
        host = vectors.cpu().numpy()
        return [host[index, : sequence.dimensions or None] for index, sequence in enumerate(batch.sequences)]

    def _vectors(self, hidden: Tensor, cu_seqlens: Tensor, sequences: Sequences[Sequence]) -> Tensor:
        """Pooled, cut and normalised float32 [B, dimension], also for sequences that want something else."""
        wishes = torch.tensor(
            [
                (sequence.prompt_tokens, sequence.dimensions or self._dimension, not sequence.skip_normalization)
                for sequence in sequences
            ],
            dtype=torch.int32,
            device=self._device,
        )
        prompt_tokens, dimensions, is_normalized = wishes.unbind(1)
        pooled = pool(hidden, cu_seqlens, prompt_tokens, self._pooling)[:, : self._dimension]
        return finish(pooled, dimensions, is_normalized.bool())


def mixed_arrays(batch: PackedBatch, vectors: Tensor, hidden: Tensor) -> list[Array]:
    """What each sequence wants, in one copy to the host."""
    parts = [
        hidden[start:stop].float()
        if sequence.output is Output.TOKEN_VECTORS
        else vectors[index, : sequence.dimensions or None]
        for index, (sequence, (start, stop)) in enumerate(
            zip(batch.sequences, itertools.pairwise(batch.cu_seqlens.tolist()), strict=True)
        )
    ]
    host = torch.cat([part.flatten() for part in parts]).cpu().numpy()
    stops = np.cumsum([part.numel() for part in parts])[:-1]
    return [flat.reshape(part.shape) for flat, part in zip(np.split(host, stops), parts, strict=True)]


def device_of(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, float32 elsewhere."""
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        # PyTorch has no public name for either.
        has_bfloat16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001
    return torch.bfloat16 if has_bfloat16 else torch.float32
