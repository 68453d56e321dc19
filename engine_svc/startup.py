"""What an engine pod decides once, at startup: what the settings leave open, and how it describes its model to others
(heddle.v1.Model)."""

import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from engine_svc.backends import Backend
from engine_svc.backends.loading import check_loadable, check_memory, choose_backend
from engine_svc.batching import SchedulerLimits
from engine_svc.device import (
    CPU,
    CPU_PASSES,
    GPU_PASSES,
    Device,
    check_gpu,
    choose_data_type,
    find_device,
    warn_of_widening,
)
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.description import describe_checkpoint
from heddle.machine import GPUS_VARIABLE, usable_cores, visible_gpus
from heddle.quantization import NO_QUANT
from heddle.rpc.start_times import end_phase
from heddle.v1 import model_pb2

# Their configurations mean two token types when they do not name a number.
TWO_TYPES = frozenset({"albert", "bert", "camembert", "electra", "roberta", "xlm-roberta"})

log = logging.getLogger(__name__)


def hide_other_gpus(settings: EngineSettings, environment: MutableMapping[str, str]) -> EngineSettings:
    """Hides all GPUs from this process except that of `--device cuda:N`. Must be called before CUDA is initialised.
    Nothing in the process can then compute on another GPU or leave a context there, and TensorRT-LLM, which takes the
    first GPU that it sees, takes the right one."""
    _, _, index = settings.device.partition(":")
    gpus = visible_gpus(environment) if index else ()
    if not index or int(index) >= len(gpus):  # `find_device` reports an index that is too large
        return settings
    environment[GPUS_VARIABLE] = gpus[int(index)]
    return replace(settings, device="cuda")


def resolve(settings: EngineSettings, checkpoint: Checkpoint) -> tuple[EngineSettings, Device]:
    """Replaces `auto` and 0 in the backend, the device, the data type and the batch. Raises ConfigurationError or
    CheckpointError if this machine cannot serve the checkpoint."""
    device = CPU if settings.backend == "simulated" else find_device(settings.device)
    end_phase("torch")
    settings = replace(settings, backend=choose_backend(settings, checkpoint, device))
    check_loadable(settings, checkpoint)
    settings = resolve_number_format(settings, checkpoint, device)
    end_phase("check")
    return replace(settings, batch_tokens_max=settings.batch_tokens_max or device.batch_tokens), device


def resolve_number_format(settings: EngineSettings, checkpoint: Checkpoint, device: Device) -> EngineSettings:
    if settings.backend == "simulated":
        return settings
    check_gpu(device, checkpoint, settings.dtype)
    warn_of_widening(device, settings.quantization)
    dtype = choose_data_type(device, checkpoint) if settings.dtype == "auto" else settings.dtype
    check_memory(device, checkpoint, dtype, settings.quantization)
    weights = "" if settings.quantization == NO_QUANT else f", with weights in {settings.quantization}"
    log.info("%s computes on %s in %s%s", checkpoint.name, device, dtype, weights)
    return replace(settings, device=device.torch_name, dtype=dtype)


def computes_on_cpu(settings: EngineSettings, device: Device) -> bool:
    return settings.backend == "torch" and device.kind == "cpu"


def choose_concurrency(settings: EngineSettings, device: Device) -> tuple[int, int]:
    """How many passes run at once, and how many cores they share. TensorRT-LLM runs one pass at a time, and so does the
    simulated backend unless `--passes` says otherwise."""
    cores = settings.threads or usable_cores()
    passes = settings.passes or {"torch": CPU_PASSES if device.kind == "cpu" else GPU_PASSES}.get(settings.backend, 1)
    if computes_on_cpu(settings, device):
        return min(passes, cores), cores
    return passes, max(passes, cores)


def make_limits(settings: EngineSettings, device: Device) -> SchedulerLimits:
    return SchedulerLimits(
        batch_tokens_max=settings.batch_tokens_max or device.batch_tokens,
        batch_items_max=settings.batch_items_max,
        queue_tokens_max=settings.queue_tokens_max,
        queue_items_max=settings.queue_items_max,
    )


def describe_model(
    checkpoint: Checkpoint, backend: Backend, device: Device, settings: EngineSettings
) -> model_pb2.Model:
    """`settings` must be resolved."""
    model = model_pb2.Model(
        vocabulary_size=checkpoint.vocabulary_size,
        sequence_tokens_max=checkpoint.sequence_tokens_max,
        data_type=backend.data_type,
        revision=checkpoint.revision,
        backend=settings.backend,
        device="" if settings.backend == "simulated" else device.kind,
        multi_label=checkpoint.multi_label,
        prompt_names=sorted(checkpoint.prompts),
        batch_tokens_max=settings.batch_tokens_max,
        uses_type_ids=count_token_types(checkpoint.config) > 1,
        matryoshka=checkpoint.matryoshka,
        embedding_kinds=list_embedding_kinds(checkpoint),
        tasks=checkpoint.tasks,
        version=version("heddle"),
    )
    model.MergeFrom(describe_checkpoint(checkpoint))
    return model


def list_embedding_kinds(checkpoint: Checkpoint) -> list[model_pb2.EmbeddingKind]:
    if checkpoint.kind is not ModelKind.EMBEDDER:
        return []
    more = [model_pb2.EMBEDDING_KIND_SPARSE, model_pb2.EMBEDDING_KIND_COLBERT] if checkpoint.m3 else []
    return [model_pb2.EMBEDDING_KIND_DENSE, *more]


def count_token_types(config: Mapping[str, Any]) -> int:
    """How many token types have embeddings."""
    stated = config.get("type_vocab_size")
    if stated is None:
        return 2 if config.get("model_type") in TWO_TYPES else 0
    return int(stated)
