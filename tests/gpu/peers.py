"""The engine beside transformers with PyTorch's own attention, in turns on the same card: the same sizes, number
format and batches, from token ids to pooled unit vectors in host memory. Lengths are equal, so transformers pads
nothing."""

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from engine_svc.sequences import PackedBatch
from tests.gpu.batches import workloads
from tests.gpu.clock import measure_wall_times
from tests.gpu.random_weights import load_random_backend
from tests.gpu.running import Task
from tests.gpu.shapes import ModelShape, shapes

ROUNDS, ROUNDS_DRY = 3, 1
SECONDS, SECONDS_DRY = 0.5, 0.01  # of a turn
SECONDS_KEPT = 8.0


class Transformers:
    def __init__(self, shape: ModelShape, device: str) -> None:
        from transformers import AutoConfig, AutoModel

        settings = {name: value for name, value in shape.config.items() if name != "architectures"}
        config = AutoConfig.for_model(**settings)
        auto_model: Any = AutoModel
        with torch.device("meta"):
            model: Any = auto_model.from_config(config, dtype=getattr(torch, shape.dtype), attn_implementation="sdpa")
        self._model = draw_weights(model.eval(), device)
        self._pools = POOLS[shape.pooling]
        self._device = device

    @torch.inference_mode()
    def run(self, batch: PackedBatch) -> np.ndarray[Any, np.dtype[np.float32]]:
        rows = torch.from_numpy(batch.token_ids.reshape(len(batch), -1).astype(np.int64))
        hidden = self._model(input_ids=rows.to(self._device)).last_hidden_state
        vectors: np.ndarray[Any, np.dtype[np.float32]] = (
            functional.normalize(self._pools(hidden), dim=1).float().cpu().numpy()
        )
        return vectors


POOLS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "lasttoken": lambda hidden: hidden[:, -1],
    "cls_token": lambda hidden: hidden[:, 0],
    "mean_tokens": lambda hidden: hidden.mean(1),
}


@torch.no_grad()
def draw_weights(model: Any, device: str) -> Any:
    """Moves the model from the device "meta" to this one, with random weights and correct buffers."""
    buffers = make_buffers(model)
    model = model.to_empty(device=device)
    for parameter in model.parameters():
        parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
    for name, values in buffers.items():
        model.get_buffer(name).copy_(values)
    return model


def make_buffers(model: Any) -> dict[str, torch.Tensor]:
    """Buffers such as rotary frequencies have no values on the device "meta": takes them from a one-layer model."""
    config = type(model.config).from_dict({**model.config.to_dict(), "num_hidden_layers": 1, "layer_types": None})
    config = type(config).from_dict({**config.to_dict(), "vocab_size": 8, "intermediate_size": 8})
    small = type(model)(config)
    return {name: buffer for name, buffer in small.named_buffers() if name in dict(model.named_buffers())}


def run(task: Task) -> None:
    for shape in shapes(is_dry=task.is_dry):
        task.attempt(shape.name, partial(measure, task, shape))
        gc.collect()
        if task.device == "cuda":
            torch.cuda.empty_cache()


def measure(task: Task, shape: ModelShape) -> None:
    ours, theirs = load_random_backend(shape, task.device), Transformers(shape, task.device)
    for workload in workloads(is_dry=task.is_dry):
        if task.record.seconds_left < SECONDS_KEPT:
            task.record.note(f"stopped before {shape.name} with {workload}: no time left")
            return
        batches = workload.batches(shape)
        medians = in_turns(task, [partial(run_nth, one.run, batches) for one in (ours, theirs)])
        own, other = (sum(workload.lengths()) / seconds for seconds in medians)
        task.record.add(
            model=shape.name,
            format=shape.dtype,
            tokens=workload.tokens,
            sequences=workload.sequences,
            heddle_tokens_s=own,
            transformers_tokens_s=other,
            ratio=own / other,
        )


def run_nth(compute: Callable[[PackedBatch], object], batches: Sequence[PackedBatch], index: int) -> None:
    compute(batches[index % len(batches)])


def in_turns(task: Task, passes: Sequence[Callable[[int], object]]) -> list[float]:
    """Returns the median seconds of each. They alternate, so that other load on the machine affects all alike."""
    taken: list[list[float]] = [[] for _ in passes]
    seconds = SECONDS_DRY if task.is_dry else SECONDS
    for turn in range(ROUNDS_DRY if task.is_dry else ROUNDS):
        for one, times in zip(passes, taken, strict=True):
            times.extend(measure_wall_times(one, seconds, repeats_min=2, warm_ups=1 if turn else 2).seconds)
    return [float(np.median(times)) for times in taken]
