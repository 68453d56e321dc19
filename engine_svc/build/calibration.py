"""Runs a model on sample texts and records the largest magnitudes of linear inputs, keys and values. `heddle build`
calls this before it quantizes, and computes scales from the result.

The result does not depend on the number of CPU cores or GPUs: the batches are always the same, one core or one GPU
computes each, and the order in which maxima are merged does not matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from engine_svc.backends.torch_backend import DTYPES
from engine_svc.build.observation import LinearInputs, ObservedAttention, Recorder
from engine_svc.build.sample_texts import Progress, TextBatch, make_batches
from engine_svc.build.side_by_side import run_side_by_side
from engine_svc.device import choose_data_type, find_device
from engine_svc.models.model import Model
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.transformer import Transformer
from engine_svc.sequences import Sequences
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError

# How many input rows to keep for each group of linears, and from how many batches.
SAMPLES, SAMPLED_BATCHES = 256, 16


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result of `calibrate`. Its keys are those of `LinearGroup`."""

    inputs: Mapping[str, LinearInputs]
    # Largest magnitudes in each attention, by its first group. Measured after norm and rotation, as a cache holds them.
    keys: Mapping[str, float]
    values: Mapping[str, float]
    texts: int
    tokens: int


def calibrate(
    checkpoint: Checkpoint,
    sequences: Sequences,
    *,
    devices: Sequence[str] = ("auto",),
    dtype: str = "auto",
    cores: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """`sequences` are tokenized texts with token types and options, as in the engine. `devices` are auto, cpu, cuda or
    cuda:N; each has a copy of the model and takes the next batch when it is free. A CPU runs one batch on each of
    `cores`; 0 means PyTorch's number of threads. `dtype` is a value of the setting. Raises CheckpointError if the
    engine cannot run the checkpoint or inputs become NaN or infinite, and ConfigurationError if a device is missing."""
    places = [load_observed(checkpoint, device, dtype) for device in devices]
    share = max(1, (cores or torch.get_num_threads()) // len(places))
    workers = [place for place in places for _ in range(share if place.device.type == "cpu" else 1)]
    batches = make_batches(sequences)
    step = -(-len(batches) // SAMPLED_BATCHES)
    samples = SAMPLES // len(range(0, len(batches), step))
    run_side_by_side(
        [partial(run_batch, place, progress) for place in workers],
        [(index, batch, 0 if index % step else samples) for index, batch in enumerate(batches)],
    )
    recorder = Recorder.merge([place.recorder for place in places])
    check_finite(checkpoint, recorder)
    inputs = {name: recorder.inputs(name) for name in recorder.names}
    return Calibration(inputs, recorder.keys, recorder.values, len(sequences), sequences.tokens)


@dataclass(frozen=True, slots=True)
class Place:
    """A device with a copy of the model."""

    device: torch.device
    dtype: torch.dtype
    transformer: Transformer
    tasks: Sequence[str]
    recorder: Recorder


def load_observed(checkpoint: Checkpoint, wanted: str, dtype: str) -> Place:
    found = find_device(wanted)
    device = torch.device(found.torch_name)
    data_type = DTYPES[choose_data_type(found, checkpoint) if dtype == "auto" else dtype]
    recorder = Recorder()
    model = Model.load(checkpoint, dtype=data_type, device=device, observe=recorder.observe)
    layers = [
        replace(layer, attention=ObservedAttention.of(layer.attention, recorder)) for layer in model.transformer.layers
    ]
    return Place(device, data_type, replace(model.transformer, layers=layers), model.tasks, recorder)


@torch.inference_mode()
def run_batch(place: Place, progress: Progress | None, work: tuple[int, TextBatch, int]) -> None:
    """`work` is the index of a batch, the batch, and how many of its input rows to keep."""
    index, batch, samples = work
    if place.device.type == "cuda":
        torch.cuda.set_device(place.device)
    tokens = PackedTokens.of(batch.packed, device=place.device, dtype=place.dtype, tasks=place.tasks)
    with place.recorder.recording(index, batch.packed.tokens, samples):
        place.transformer(tokens)
    if progress is not None:
        progress(len(batch.indices))


def check_finite(checkpoint: Checkpoint, recorder: Recorder) -> None:
    for name in recorder.names:
        if not recorder.inputs(name).largest.isfinite().all():
            raise CheckpointError(f"{checkpoint.folder}: the inputs of {name} become infinite or NaN; try float32")
