"""The backend that runs the models of `engine_svc.models` with PyTorch, on a CPU or an NVIDIA GPU."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from engine_svc.backends import OutOfMemoryError
from engine_svc.backends.cuda_graphs import CudaGraphs, capture_graphs, capture_on
from engine_svc.backends.cuda_passes import CudaPasses, check_device, is_out_of_memory
from engine_svc.device import choose_data_type, find_device
from engine_svc.models.heads.head import HeadOutputs
from engine_svc.models.lora import use_adapters
from engine_svc.models.model import Model
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.weights import Observe
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from heddle import machine
from heddle.checkpoint import Checkpoint
from heddle.quantization import NO_QUANT

# While a model is loaded, glibc returns freed memory to the system: this is the threshold that it starts with, and that
# stays once it is set. Otherwise it rises with the blocks that are freed, up to 32 MiB. Weights that are replaced by a
# packed copy would then leave holes in its heap that no later weights fill: a third of a model, for the life of the
# process.
BYTES_KEPT_WHILE_LOADING = 128 << 10
# Afterwards glibc keeps freed memory for the next pass, as much as the largest batch needs. Otherwise the kernel would
# have to clear the pages of the activations in each pass: a twentieth of its time in float32, and far more where matrix
# products are faster.
BYTES_KEPT = 1 << 30

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchBackend:
    """See `engine_svc.backends.Backend` for who may call it, and when."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: str = "auto",
        threads: int = 0,
        device: str = "auto",
        adapter: str = "",
        quantization: str = NO_QUANT,
        share_prefixes: bool = True,
        observe: Observe | None = None,
    ) -> None:
        """`dtype` is auto, float32, bfloat16 or float16. `threads` is the number of CPU cores for a pass that names
        none; 0 leaves PyTorch's choice, one per core. `device` is auto, cpu, cuda or cuda:N. `adapter` is one of the
        checkpoint's, or "". `quantization` is a value of the setting of that name. With `share_prefixes` a causal model
        computes a prefix that sequences of a batch share only once. `observe` is called with each linear of the
        transformer. Raises CheckpointError."""
        if threads:
            torch.set_num_threads(threads)
        self._threads = torch.get_num_threads()
        self._device = find_torch_device(device)
        if self._device.type == "cpu":
            machine.keep_freed_memory(BYTES_KEPT_WHILE_LOADING)
        else:
            torch.cuda.set_device(self._device)  # Triton launches kernels on the current one, whatever their arguments
        self._dtype = DTYPES[choose_data_type(find_device(device), checkpoint) if dtype == "auto" else dtype]
        self._model = Model.load(
            checkpoint,
            dtype=self._dtype,
            device=self._device,
            adapter=adapter,
            quantization=quantization,
            observe=observe,
        )
        if self._device.type == "cpu":
            machine.keep_freed_memory(BYTES_KEPT)
        # Sequences with different adapters have different hidden states for the same prefix.
        self._share_prefixes = share_prefixes and self._model.transformer.is_causal and not self._model.tasks
        self._passes: CudaPasses | None = None
        self._graphs = CudaGraphs()
        if self._device.type == "cuda":
            self._passes = CudaPasses(self._device)
            self._graphs = self._capture_graphs(self._passes, checkpoint.sequence_tokens_max)

    @property
    def outputs(self) -> frozenset[Output]:
        return self._model.head.outputs

    @property
    def data_type(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        torch.set_num_threads(cores or self._threads)  # for this thread; takes no time
        lengths = batch.lengths
        if (lengths[1:] >= lengths[:-1]).all():
            return self._run_by_length(batch)
        # Attention needs one call for all sequences of the same length.
        order = np.argsort(lengths, kind="stable")
        by_length = batch.take(order)
        results = self._run_by_length(by_length)
        # Sorting the rows by their index in the batch restores its order.
        return {
            output: rows.take(np.argsort(order[by_length.output_indices[output]])) for output, rows in results.items()
        }

    def close(self) -> None:
        del self._model, self._graphs
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _run_by_length(self, batch: PackedBatch) -> Mapping[Output, Rows]:
        if self._passes is None:
            outputs = self._compute(self._pack(batch), batch)
            return outputs.split(outputs.flat.numpy())
        try:
            return self._passes.run(lambda: self._pack(batch), lambda tokens: self._compute(tokens, batch))
        except Exception as error:
            check_device(self._device, error)
            if not is_out_of_memory(error):
                raise
            reason = str(error)
        # Outside `except`, where the traceback no longer holds the tensors of the pass.
        torch.cuda.empty_cache()
        raise OutOfMemoryError(reason)

    @torch.inference_mode()
    def _pack(self, batch: PackedBatch) -> PackedTokens:
        return PackedTokens.of(
            batch,
            device=self._device,
            dtype=self._dtype,
            share_prefixes=self._share_prefixes,
            tasks=self._model.tasks,
        )

    @torch.inference_mode()
    def _compute(self, tokens: PackedTokens, batch: PackedBatch) -> HeadOutputs:
        return self._model.head(tokens.gather_tokens(self._hidden(tokens)), tokens, batch)

    def _hidden(self, tokens: PackedTokens) -> Tensor:
        graph = self._graphs.find(tokens)
        if graph is not None:
            return graph.run(tokens)
        with use_adapters(tokens.adapter_rows):
            return self._model.transformer(tokens)

    @torch.inference_mode()
    def _capture_graphs(self, passes: CudaPasses, sequence_tokens_max: int) -> CudaGraphs:
        with torch.cuda.stream(passes.stream):
            return capture_graphs(
                self._model.transformer,
                capture_on(passes.stream),
                device=self._device,
                dtype=self._dtype,
                sequence_tokens_max=sequence_tokens_max,
            )


def find_torch_device(name: str) -> torch.device:
    """Includes the index of the GPU, as the device of a tensor does. Raises ConfigurationError if there is none."""
    return torch.device(find_device(name).torch_name)
