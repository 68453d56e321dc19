"""Runs TensorRT-LLM's LLM and returns the hidden states of a packed batch. One class for each API of the LLM.

The backend calls it, in the thread that made it.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from engine_svc.backends.tensorrt_llm.versions import Api
from engine_svc.batch import PackedBatch


@dataclass(frozen=True, slots=True)
class EngineLimits:
    batch_tokens_max: int
    batch_items_max: int
    sequence_tokens_max: int


class Engine(Protocol):
    def hidden_states(self, batch: PackedBatch) -> Tensor:
        """Returns [tokens, hidden] in the order of the batch, on the GPU or in host memory."""
        ...

    def shutdown(self) -> None: ...


def start_engine(api: Api, folder: Path, limits: EngineLimits) -> Engine:
    """Loads the model of the folder. Its class must be registered. A large model takes minutes."""
    return EncodeEngine(folder, limits) if api is Api.ENCODE else GenerateEngine(folder, limits)


class EncodeEngine:
    def __init__(self, folder: Path, limits: EngineLimits) -> None:
        from tensorrt_llm import LLM

        self._llm: Any = LLM(**arguments_of(folder, limits, limits.sequence_tokens_max), encode_only=True)

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        hidden: Tensor = self._llm.encode(
            prompts_of(batch), batch_indexed_model_output=False, copy_logits_to_host=False, return_raw_logits=True
        )
        return hidden

    def shutdown(self) -> None:
        self._llm.shutdown()


class GenerateEngine:
    """Requests the "logits" of all tokens. Our model class returns hidden states in their place."""

    def __init__(self, folder: Path, limits: EngineLimits) -> None:
        from tensorrt_llm import LLM, SamplingParams
        from tensorrt_llm.llmapi import KvCacheConfig

        # It requires room for one generated token.
        arguments = arguments_of(folder, limits, limits.sequence_tokens_max + 1)
        cache = KvCacheConfig(enable_block_reuse=False)
        self._llm: Any = LLM(**arguments, disable_overlap_scheduler=True, kv_cache_config=cache)
        # Without a tokenizer it requires the ids for end and padding, though nothing is generated.
        self._sampling = SamplingParams(max_tokens=1, end_id=0, pad_id=0, return_context_logits=True)

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        requests: list[Any] = []  # to abort if a later one is refused
        try:
            for prompt in prompts_of(batch):
                requests.append(self._llm.generate_async(prompt, sampling_params=self._sampling))  # noqa: PERF401
            return torch.cat([request.result().context_logits for request in requests])
        except BaseException:
            for request in requests:
                if not request.finished:
                    request.abort()
            raise

    def shutdown(self) -> None:
        self._llm.shutdown()


def arguments_of(folder: Path, limits: EngineLimits, sequence_tokens_max: int) -> dict[str, Any]:
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


def prompts_of(batch: PackedBatch) -> list[dict[str, list[int]]]:
    ids, bounds = batch.token_ids.tolist(), batch.cu_seqlens.tolist()
    return [{"prompt_token_ids": ids[start:stop]} for start, stop in itertools.pairwise(bounds)]
