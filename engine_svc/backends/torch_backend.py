"""The backend that runs the models of `engine_svc.models` with PyTorch, on a CPU or an NVIDIA GPU."""

from collections.abc import Sequence as Sequences
from itertools import chain

import numpy as np
import torch

from engine_svc.backends.host_memory import keep_freed_memory, return_freed_memory
from engine_svc.batch import Output, PackedBatch, split_by_sequence
from engine_svc.data_type import auto_data_type
from engine_svc.device import find_device
from engine_svc.models.heads.head import Array
from engine_svc.models.low_rank import rows_by_adapter, use_adapters
from engine_svc.models.model import Model
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.quantization import NO_QUANT
from heddle.checkpoint import Checkpoint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchBackend:
    """A model of `engine_svc.models`. See engine_svc.backends.backend.Backend for who may call it, and when."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: str = "auto",
        threads: int = 0,
        device: str = "auto",
        adapter: str = "",
        quantization: str = NO_QUANT,
        merges_prefixes: bool = True,
    ) -> None:
        """`dtype` is auto, float32, bfloat16 or float16. `threads` of the CPU are for a pass that is told of none;
        0 leaves PyTorch's choice, one per core. `device` is auto, cpu, cuda or cuda:N. `adapter` is one of the
        checkpoint's, or "". `quantization` is no_quant, fp8 or fp4. A causal model computes prefixes that sequences of
        a batch share once, unless `merges_prefixes` says no. Raises CheckpointError."""
        if threads:
            torch.set_num_threads(threads)
        self._threads = torch.get_num_threads()
        self._device = device_of(device)
        if self._device.type == "cpu":
            return_freed_memory()
        self._dtype = DTYPES[auto_data_type(find_device(device), checkpoint) if dtype == "auto" else dtype]
        self._model = Model.load(
            checkpoint, dtype=self._dtype, device=self._device, adapter=adapter, quantization=quantization
        )
        if self._device.type == "cpu":
            keep_freed_memory()
        # Sequences with different adapters have different hidden states for the same prefix.
        self._merges_prefixes = merges_prefixes and self._model.transformer.is_causal and not self._model.tasks

    @property
    def outputs(self) -> frozenset[Output]:
        return self._model.head.outputs

    @property
    def data_type(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    def run(self, batch: PackedBatch, cores: int = 0) -> Sequences[Array]:
        """As the model's head answers, in the order of the batch."""
        torch.set_num_threads(cores or self._threads)  # of this thread's passes; takes no time
        # Attention makes one call for all sequences of a length.
        order = np.argsort(batch.lengths, kind="stable")
        by_length = PackedBatch.of([batch.sequences[index] for index in order])
        arrays: list[list[Array]] = [[]] * len(order)
        for index, own in zip(
            order, split_by_sequence(self._run_by_length(by_length), by_length.sequences), strict=True
        ):
            arrays[index] = own
        return list(chain.from_iterable(arrays))

    def close(self) -> None:
        del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _run_by_length(self, batch: PackedBatch) -> Sequences[Array]:
        transformer, head = self._model.transformer, self._model.head
        tokens = PackedTokens.of(batch, device=self._device, dtype=self._dtype, merges_prefixes=self._merges_prefixes)
        with use_adapters(rows_by_adapter(batch, self._model.tasks, self._device)):
            hidden = transformer(tokens)
        return head(tokens.of_tokens(hidden), tokens.layout.cu_seqlens, batch)


def device_of(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
