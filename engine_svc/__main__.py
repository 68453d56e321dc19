"""Starts an engine pod: settings, backend on its worker, scheduler, servicer, server. `engine-svc --help` tells all."""

import asyncio
import logging
import os
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import NoReturn

from engine_svc.backends.choice import chosen_backend
from engine_svc.backends.loading import check_loadable, load_backend
from engine_svc.data_type import auto_data_type
from engine_svc.description import described
from engine_svc.device import CPU, CPU_PASSES, GPU_PASSES, Device, find_device
from engine_svc.forming import SchedulerLimits
from engine_svc.hardware import check_gpu
from engine_svc.models.quantization import NO_QUANT
from engine_svc.scheduler import Scheduler
from engine_svc.servicer import EngineServicer
from engine_svc.settings import EngineSettings
from engine_svc.warm_up import warm_up_batches
from engine_svc.worker import Worker
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import locate
from heddle.machine import GPUS_VARIABLE, usable_cores, visible_gpus
from heddle.rpc.keys import ApiKeys
from heddle.rpc.lifecycle import Server, leave, run
from heddle.rpc.settings import load
from heddle.rpc.telemetry import serve_metrics, start_logging
from heddle.v1.engine_pb2_grpc import add_EngineServiceServicer_to_server

# Seconds that a backend has to close. `heddle.supervisor` waits for it: see Limits there.
CLOSE_S_MAX = 10.0

log = logging.getLogger("engine_svc")


def main() -> NoReturn:
    # Read when oneDNN compiles its first primitive. It keeps 1,024 otherwise; each shape and number of cores has one.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    # TensorRT-LLM reads both. Without the first it reports its use to NVIDIA.
    os.environ["TRTLLM_NO_USAGE_STATS"] = "1"
    # Without this one it loads the model in another process, where our model class is not registered.
    os.environ["TLLM_WORKER_USE_SINGLE_PROCESS"] = "1"
    settings = load(EngineSettings, sys.argv[1:], os.environ, prog="engine-svc", env_prefix="HEDDLE_ENGINE_")
    start_logging("engine_svc", log_format=settings.log_format, log_level=settings.log_level)
    run(lambda: serve(alone_on_gpu(settings)))


def alone_on_gpu(settings: EngineSettings) -> EngineSettings:
    """Hides all GPUs from this process except that of `--device cuda:N`. Must be called before CUDA is initialised.
    Nothing in the process can then compute on another GPU or leave a context there, and TensorRT-LLM, which takes the
    first GPU that it sees, takes the right one."""
    _, _, index = settings.device.partition(":")
    gpus = visible_gpus(os.environ) if index else ()
    if not index or int(index) >= len(gpus):  # `find_device` reports an index that is too large
        return settings
    os.environ[GPUS_VARIABLE] = gpus[int(index)]
    return replace(settings, device="cuda")


def computes_on_cpu(settings: EngineSettings, device: Device) -> bool:
    return settings.backend == "torch" and device.kind == "cpu"


def concurrency(settings: EngineSettings, device: Device) -> tuple[int, int]:
    """How many passes run at once, and how many cores they share. TensorRT-LLM runs one pass at a time, and so does the
    simulated backend unless `--passes` says otherwise."""
    cores = settings.threads or usable_cores()
    passes = settings.passes or {"torch": CPU_PASSES if device.kind == "cpu" else GPU_PASSES}.get(settings.backend, 1)
    if computes_on_cpu(settings, device):
        return min(passes, cores), cores
    return passes, max(passes, cores)


def limits_of(settings: EngineSettings, device: Device) -> SchedulerLimits:
    return SchedulerLimits(
        batch_tokens_max=settings.batch_tokens_max or device.batch_tokens,
        batch_items_max=settings.batch_items_max,
        queue_tokens_max=settings.queue_tokens_max,
        queue_items_max=settings.queue_items_max,
    )


def fitted(settings: EngineSettings, checkpoint: Checkpoint, device: Device) -> EngineSettings:
    """Replaces `auto` in the device and the data type. Raises ConfigurationError if the GPU cannot serve the model."""
    if settings.backend == "simulated":
        return settings
    check_gpu(device, checkpoint, dtype=settings.dtype, quantization=settings.quantization)
    dtype = auto_data_type(device, checkpoint) if settings.dtype == "auto" else settings.dtype
    if device.kind == "cuda":
        from engine_svc.weight_memory import check_memory

        check_memory(device, checkpoint, dtype, settings.quantization)
    weights = "" if settings.quantization == NO_QUANT else f", with weights in {settings.quantization}"
    log.info("%s computes on %s in %s%s", checkpoint.name, device, dtype, weights)
    return replace(settings, device=device.torch_name, dtype=dtype)


def leave_if_broken(stopped: Future[None]) -> None:
    """Without its first thread a pod would be ready and compute nothing: whoever watches it starts it anew."""
    if stopped.exception() is not None:
        leave(1)


async def until_closed(worker: Worker) -> None:
    """Waits until the backend has released its device, but not for a pass that still runs."""
    deadline = time.monotonic() + CLOSE_S_MAX
    while (
        worker.loaded.done()
        and not worker.stopped.done()
        and worker.running_since is None
        and time.monotonic() < deadline
    ):
        await asyncio.sleep(0.005)


async def serve(settings: EngineSettings, stop: asyncio.Event | None = None) -> None:
    """Until `stop` is set, or the process gets a signal if none is given."""
    checkpoint = Checkpoint.read(
        locate(settings.model, settings.revision or None),
        name=settings.served_model_name or settings.model,
        pooling=settings.pooling,
        score_tokens=settings.score_tokens,
    )
    device = CPU if settings.backend == "simulated" else find_device(settings.device)
    settings = replace(settings, backend=chosen_backend(settings, checkpoint, device))
    check_loadable(settings, checkpoint)
    limits = limits_of(settings, device)
    settings = replace(fitted(settings, checkpoint, device), batch_tokens_max=limits.batch_tokens_max)
    passes, cores = concurrency(settings, device)
    runs_in_turn = settings.backend == "torch" and device.kind == "cuda"
    scheduler = Scheduler(limits, passes=passes, cores=cores, runs_in_turn=runs_in_turn)
    worker = Worker(
        lambda: load_backend(replace(settings, threads=cores), checkpoint),
        scheduler,
        asyncio.get_running_loop(),
        warm_up_batches(limits, checkpoint.sequence_tokens_max),
        threads=passes,
        has_express=computes_on_cpu(settings, device),
    )
    servicer = EngineServicer(scheduler, [worker])
    keys = ApiKeys.load(settings.api_keys, settings.api_keys_file)
    server = Server(settings.listen, drain_s_max=settings.drain_s_max, tls=settings.tls, keys=keys, stop=stop)
    server.add("heddle.v1.EngineService", add_EngineServiceServicer_to_server, servicer)

    async def warm_up() -> None:
        worker.start()
        backend = await asyncio.wrap_future(worker.loaded)
        worker.stopped.add_done_callback(leave_if_broken)
        model = described(checkpoint, backend, device, settings, limits.batch_tokens_max)
        servicer.serve_model(model, backend.outputs)

    async def close() -> None:
        scheduler.close()
        await until_closed(worker)

    if settings.metrics_port is not None:
        serve_metrics(settings.metrics_port)
    await server.serve(
        warm_up=warm_up,
        announce_draining=servicer.stream.announce_draining,
        until_idle=servicer.stream.until_idle,
        close=close,
    )


if __name__ == "__main__":
    main()
