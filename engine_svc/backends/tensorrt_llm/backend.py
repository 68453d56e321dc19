"""The backend: TensorRT-LLM computes the hidden states, then `engine_svc.models` applies pooling and heads."""

import contextlib
import itertools
import logging
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from engine_svc.backends.tensorrt_llm.model import register_class, write_model_folder
from engine_svc.backends.tensorrt_llm.support import (
    MODEL_TYPES,
    Api,
    installed_api,
    installed_version,
    read_supported_quantization,
)
from engine_svc.backends.torch_backend import DTYPES, find_torch_device
from engine_svc.models import model
from engine_svc.models.architectures.registry import find_architecture
from engine_svc.models.heads.head import Head
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.weights import Weights
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.causality import is_causal

log = logging.getLogger(__name__)


class TensorRTLLMBackend:
    """One thread must create, run and close it: TensorRT-LLM's calls share buffers."""

    def __init__(self, checkpoint: Checkpoint, *, dtype: str, batch_tokens_max: int, batch_items_max: int) -> None:
        """`dtype` is auto, bfloat16 or float16. The checkpoint has passed `check_support`. Raises CheckpointError."""
        self._thread = threading.get_ident()
        self._data_type = "bfloat16" if dtype == "auto" else dtype
        self._device = find_torch_device("auto")
        self._head = load_head(checkpoint, self._device, DTYPES[self._data_type])
        api = installed_api()
        limits = EngineLimits(batch_tokens_max, batch_items_max, checkpoint.sequence_tokens_max)
        model_type = MODEL_TYPES[checkpoint.config["model_type"]]
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heddle-tensorrt-llm-")))
            write_model_folder(folder, checkpoint, self._data_type)
            register_class(model_type, api, is_causal=is_causal(checkpoint.config))
            self._engine = start_engine(api, folder, limits)
            stack.callback(self._engine.shutdown)
            self._resources = stack.pop_all()
        quantization = read_supported_quantization(checkpoint)
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
        self._resources.close()

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("TensorRT-LLM is called by another thread than the one that loaded it")


def load_head(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Head:
    """The weights of a head are not quantized, even in a quantized checkpoint. Raises CheckpointError."""
    config = {name: value for name, value in checkpoint.config.items() if name != "quantization_config"}
    plain = replace(checkpoint, config=config)
    architecture = find_architecture(ModelConfig.of(plain))
    weights = Weights(checkpoint.folder, dtype=dtype, device=device, prefix=architecture.prefix)
    return model.load_head(plain, ModelConfig.of(plain), architecture, weights)


@dataclass(frozen=True, slots=True)
class EngineLimits:
    batch_tokens_max: int
    batch_items_max: int
    sequence_tokens_max: int


class Engine(Protocol):
    """TensorRT-LLM's LLM, called by one of its APIs."""

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        """Returns [tokens, hidden] in the order of the batch, on the GPU or in host memory."""
        ...

    def shutdown(self) -> None: ...


def start_engine(api: Api, folder: Path, limits: EngineLimits) -> Engine:
    """Loads the model of the folder, whose class must be registered. A large model takes minutes."""
    return EncodeEngine(folder, limits) if api is Api.ENCODE else GenerateEngine(folder, limits)


class EncodeEngine:
    def __init__(self, folder: Path, limits: EngineLimits) -> None:
        from tensorrt_llm import LLM

        self._llm: Any = LLM(**llm_arguments(folder, limits, limits.sequence_tokens_max), encode_only=True)

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        hidden: Tensor = self._llm.encode(
            make_prompts(batch), batch_indexed_model_output=False, copy_logits_to_host=False, return_raw_logits=True
        )
        return hidden

    def shutdown(self) -> None:
        self._llm.shutdown()


class GenerateEngine:
    """Asks for the "logits" of all tokens. Our model class returns hidden states in their place."""

    def __init__(self, folder: Path, limits: EngineLimits) -> None:
        from tensorrt_llm import LLM, SamplingParams
        from tensorrt_llm.llmapi import KvCacheConfig

        # TensorRT-LLM requires room for one generated token.
        arguments = llm_arguments(folder, limits, limits.sequence_tokens_max + 1)
        cache = KvCacheConfig(enable_block_reuse=False)
        self._llm: Any = LLM(**arguments, disable_overlap_scheduler=True, kv_cache_config=cache)
        # Without a tokenizer it requires the ids for end and padding, though nothing is generated.
        self._sampling = SamplingParams(max_tokens=1, end_id=0, pad_id=0, return_context_logits=True)

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        requests: list[Any] = []  # to abort if a later one is refused
        try:
            for prompt in make_prompts(batch):
                requests.append(self._llm.generate_async(prompt, sampling_params=self._sampling))  # noqa: PERF401
            return torch.cat([request.result().context_logits for request in requests])
        except BaseException:
            for request in requests:
                if not request.finished:
                    request.abort()
            raise

    def shutdown(self) -> None:
        self._llm.shutdown()


def llm_arguments(folder: Path, limits: EngineLimits, sequence_tokens_max: int) -> dict[str, Any]:
    return {
        "model": str(folder),
        "skip_tokenizer_init": True,
        "attn_backend": "TRTLLM",
        "max_batch_size": limits.batch_items_max,
        # One sequence may be longer than batch_tokens_max; it then runs alone.
        "max_num_tokens": max(limits.batch_tokens_max, sequence_tokens_max),
        "max_seq_len": sequence_tokens_max,
        # With CUDA graphs the output is cut to one row per sequence, and we need one per token.
        "cuda_graph_config": None,
    }


def make_prompts(batch: PackedBatch) -> list[dict[str, list[int]]]:
    ids, bounds = batch.token_ids.tolist(), batch.cu_seqlens.tolist()
    return [{"prompt_token_ids": ids[start:stop]} for start, stop in itertools.pairwise(bounds)]
