"""A fake of TensorRT-LLM's LLM: it accepts, refuses, returns and raises what the real one does, by its source.

Signatures come from the records, so a call that they do not have fails. What would crash the real one, such as calls
from two threads, raises an error here.
"""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from engine_svc.backends.tensorrt_llm.support import Api
from tests.engine_svc.backends.tensorrt_llm.fake_models import EngineModelConfig, make_metadata
from tests.engine_svc.backends.tensorrt_llm.records import FIELDS, bind_call, find_signature, recorded_members

# From is_generation_model in tensorrt_llm/_torch/model_config.py.
NOT_GENERATING = (
    *("BertForSequenceClassification", "Qwen2ForProcessRewardModel", "Qwen2ForRewardModel", "LlamaForTextEmbedding"),
)

MODEL_CLASS_MAPPING: dict[str, Callable[[EngineModelConfig], Any]] = {}


class RequestError(RuntimeError):
    pass


class Recorded:
    """Accepts only the fields that are in the records."""

    def __init__(self, api: Api, name: str, fields: Mapping[str, Any]) -> None:
        unknown = fields.keys() - recorded_members(api, name)
        if unknown:
            raise TypeError(f"{name} got unexpected arguments {sorted(unknown)}")
        self.__dict__.update(fields)


class Llm:
    """`made` holds all instances."""

    made: list["Llm"]
    api: Api

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        passed = bind_call(self.api, "BaseLLM.__init__", *args, **kwargs)
        arguments = {**passed, **passed["kwargs"]}
        known = {
            *FIELDS,
            *recorded_members(self.api, "TorchLlmArgs"),
            *find_signature(self.api, "BaseLLM.__init__").parameters,
        }
        for name in kwargs:
            if name not in known:
                raise ValueError(f"LLM got invalid argument: {name}")
        self.arguments = arguments
        self.encode_only = arguments.get("encode_only", False)
        self.calls = 0
        self.shutdowns = 0
        self.fails_next: BaseException | None = None
        self.aborted = 0
        self._thread = threading.get_ident()
        self._model: Any = self._built(Path(arguments["model"]))
        self.made.append(self)

    def _built(self, folder: Path) -> Any:
        config = SimpleNamespace(**json.loads((folder / "config.json").read_text()))
        architecture = config.architectures[0]
        if architecture not in MODEL_CLASS_MAPPING:
            raise ValueError(f"Unknown architecture for AutoModelForCausalLM: {architecture}")
        is_generation = architecture not in NOT_GENERATING
        if is_generation and not self.encode_only:
            raise AssertionError("a model that generates answers logits, and has a cache of keys and values")
        model = MODEL_CLASS_MAPPING[architecture](EngineModelConfig(config, folder, self.api, is_generation))
        weights = {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
        model.load_weights(weights, weight_mapper=None)
        return model

    def encode(self, *args: Any, **kwargs: Any) -> Tensor:
        self._enter()
        passed = bind_call(self.api, "BaseLLM.encode", *args, **kwargs)
        if passed["model_kwargs"]:
            raise TypeError(f"inputs that our class does not take: {sorted(passed['model_kwargs'])}")
        if not self.encode_only:
            raise RuntimeError("encode() requires encode_only=True.")
        ids = [prompt["prompt_token_ids"] for prompt in passed["inputs"]]
        self._check_limits([len(one) for one in ids])
        hidden = self._forward(ids)
        if self.arguments["cuda_graph_config"] is not None:
            hidden = hidden[: len(ids)]
        if passed["batch_indexed_model_output"] or not passed["return_raw_logits"]:
            raise AssertionError("rows of tokens would be taken for rows of sequences")
        return hidden

    def _check_limits(self, lengths: list[int]) -> None:
        limits = self.arguments
        if len(lengths) > limits["max_batch_size"]:
            raise ValueError(f"Batch size ({len(lengths)}) exceeds max_batch_size ({limits['max_batch_size']}).")
        if sum(lengths) > limits["max_num_tokens"]:
            raise ValueError(f"Total tokens ({sum(lengths)}) exceeds max_num_tokens ({limits['max_num_tokens']}).")
        if max(lengths) > limits["max_seq_len"]:
            raise ValueError(f"Max sequence length ({max(lengths)}) exceeds max_seq_len ({limits['max_seq_len']}).")

    def generate_async(self, *args: Any, **kwargs: Any) -> "RequestOutput":
        self._enter()
        passed = bind_call(self.api, "BaseLLM.generate_async", *args, **kwargs)
        if self.encode_only:
            raise RuntimeError("generate_async() is not available when encode_only=True.")
        sampling, ids = passed["sampling_params"], passed["inputs"]["prompt_token_ids"]
        if getattr(sampling, "end_id", None) is None:
            raise ValueError("tokenizer is required to reset end_id if it is None")
        if len(ids) > self.arguments["max_num_tokens"]:
            raise RequestError(f"The sum of prompt length ({len(ids)}) should not exceed max_num_tokens")
        if len(ids) + sampling.max_tokens > self.arguments["max_seq_len"]:
            raise RequestError(f"prompt length {len(ids)} and max_tokens exceed max_seq_len")
        return RequestOutput(self, ids, sampling)

    def _forward(self, ids: list[list[int]]) -> Tensor:
        lengths = [len(one) for one in ids]
        positions = torch.cat([torch.arange(length, dtype=torch.int32) for length in lengths])
        answer: Tensor = self._model(
            attn_metadata=make_metadata(lengths),
            input_ids=torch.tensor([token for one in ids for token in one], dtype=torch.int32),
            position_ids=positions[None],
            seq_lens=lengths,
            return_context_logits=True,
        )
        return answer

    def _enter(self) -> None:
        if threading.get_ident() != self._thread:
            raise AssertionError("called by another thread: buffers are shared")
        if self.shutdowns:
            raise RuntimeError("LLM is shut down or not initialized. Please recreate the LLM object.")
        self.calls += 1
        failure, self.fails_next = self.fails_next, None
        if failure is not None:
            raise failure

    def shutdown(self) -> None:
        if threading.get_ident() != self._thread:
            raise AssertionError("shut down by another thread")
        self.shutdowns += 1


class RequestOutput:
    def __init__(self, llm: Llm, ids: list[int], sampling: Any) -> None:
        self._llm, self._ids, self._sampling = llm, ids, sampling
        self.finished = False
        self.context_logits: Tensor | None = None

    def result(self, *args: Any, **kwargs: Any) -> "RequestOutput":
        bind_call(Api.GENERATE, "GenerationResult.result", *args, **kwargs)
        self.finished = True
        if self._sampling.return_context_logits:
            # An item of the first dimension for each request.
            [self.context_logits] = self._llm._forward([self._ids]).unbind()
        return self

    def abort(self) -> None:
        self._llm.aborted += 1
