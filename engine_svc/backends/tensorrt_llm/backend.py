"""The backend: TensorRT-LLM computes the hidden states, then engine_svc.models applies pooling and heads."""

import contextlib
import logging
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from engine_svc.backends.tensorrt_llm.engine_folder import write_engine_folder
from engine_svc.backends.tensorrt_llm.engines import EngineLimits, start_engine
from engine_svc.backends.tensorrt_llm.fitness import MODEL_TYPES
from engine_svc.backends.tensorrt_llm.model_classes import register_class
from engine_svc.backends.tensorrt_llm.quantization import quantization_of
from engine_svc.backends.tensorrt_llm.versions import installed_api, installed_version
from engine_svc.backends.torch_backend import DTYPES, device_of
from engine_svc.batch import Output, PackedBatch
from engine_svc.models.architectures.registry import find_architecture
from engine_svc.models.heads.head import Head
from engine_svc.models.model import load_head
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.weights import Weights
from engine_svc.rows import Rows
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.causality import is_causal

log = logging.getLogger(__name__)


class TensorRTLLMBackend:
    """One thread must make, run and close it: TensorRT-LLM's calls share buffers."""

    def __init__(self, checkpoint: Checkpoint, *, dtype: str, batch_tokens_max: int, batch_items_max: int) -> None:
        """`dtype` is auto, bfloat16 or float16. The checkpoint has passed `check_fitness`. Raises CheckpointError."""
        self._thread = threading.get_ident()
        self._data_type = "bfloat16" if dtype == "auto" else dtype
        self._device = device_of("auto")
        self._head = load_head_of(checkpoint, self._device, DTYPES[self._data_type])
        api = installed_api()
        limits = EngineLimits(batch_tokens_max, batch_items_max, checkpoint.sequence_tokens_max)
        model_type = MODEL_TYPES[checkpoint.config["model_type"]]
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heddle-tensorrt-llm-")))
            write_engine_folder(folder, checkpoint, self._data_type)
            register_class(model_type, api, is_causal=is_causal(checkpoint.config))
            self._engine = start_engine(api, folder, limits)
            stack.callback(self._engine.shutdown)
            self._open = stack.pop_all()
        quantization = quantization_of(checkpoint)
        weights = self._data_type if quantization is None else quantization.algorithm
        log.info("TensorRT-LLM %s, called by %s, weights in %s", installed_version(), api.value, weights)

    @property
    def outputs(self) -> frozenset[Output]:
        return self._head.outputs

    @property
    def data_type(self) -> str:
        return self._data_type

    @torch.inference_mode()
    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        """Returns the rows of the model's head, in the order of the batch."""
        self._check_thread()
        hidden = self._engine.hidden_states(batch)
        if len(hidden) != batch.tokens:
            raise RuntimeError(f"TensorRT-LLM returned {len(hidden)} hidden states for {batch.tokens} tokens")
        hidden = hidden.to(self._device)
        tokens = PackedTokens.of(batch, device=self._device, dtype=hidden.dtype)
        outputs = self._head(hidden, tokens, batch)
        return outputs.split(outputs.flat.cpu().numpy())

    def close(self) -> None:
        """A second call does nothing."""
        self._check_thread()
        self._open.close()

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("TensorRT-LLM is called by another thread than the one that loaded it")


def load_head_of(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Head:
    """The weights of a head are not quantized, even in a quantized checkpoint. Raises CheckpointError."""
    config = {name: value for name, value in checkpoint.config.items() if name != "quantization_config"}
    plain = replace(checkpoint, config=config)
    architecture = find_architecture(ModelConfig.of(plain))
    weights = Weights(checkpoint.folder, dtype=dtype, device=device, prefix=architecture.prefix)
    return load_head(plain, ModelConfig.of(plain), architecture, weights)
