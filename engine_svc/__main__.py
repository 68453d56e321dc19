"""Starts an engine pod: settings, backend on its lane, scheduler, servicer, server. `engine-svc --help` tells all."""

import asyncio
import os
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import NoReturn

from engine_svc.backends.choice import chosen_backend
from engine_svc.backends.loading import check_loadable, load_backend
from engine_svc.description import described
from engine_svc.device import CPU_PASSES, batch_tokens_default, has_nvidia_gpu
from engine_svc.lane import Lane, warm_up_batches
from engine_svc.scheduler import Scheduler, SchedulerLimits
from engine_svc.servicer import EngineServicer
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.cores import usable_cores
from heddle.model_source import locate
from heddle.rpc.keys import load_api_keys
from heddle.rpc.lifecycle import Server, leave, run
from heddle.rpc.metrics import serve_metrics
from heddle.rpc.settings import load
from heddle.rpc.telemetry import start_logging
from heddle.v1.engine_pb2_grpc import add_EngineServiceServicer_to_server

# Seconds that a backend has to close. `heddle.supervisor` waits for it: see Limits there.
CLOSE_S_MAX = 10.0


def main() -> NoReturn:
    # Read when oneDNN compiles its first primitive. It keeps 1,024 otherwise; each shape and number of cores has one.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    # TensorRT-LLM reads both. Without the first it reports its use to NVIDIA.
    os.environ["TRTLLM_NO_USAGE_STATS"] = "1"
    # Without this one it loads the model in another process, where our model class is not registered.
    os.environ["TLLM_WORKER_USE_SINGLE_PROCESS"] = "1"
    settings = load(EngineSettings, sys.argv[1:], os.environ, prog="engine-svc", env_prefix="HEDDLE_ENGINE_")
    start_logging("engine_svc", log_format=settings.log_format, log_level=settings.log_level)
    run(lambda: serve(settings))


def computes_on_cpu(settings: EngineSettings) -> bool:
    return settings.backend == "torch" and not has_nvidia_gpu()


def concurrency(settings: EngineSettings) -> tuple[int, int]:
    """Passes that run at once, and the cores that they share. On a GPU, and simulated, one runs after the other unless
    that is set otherwise."""
    cores = settings.threads or usable_cores()
    passes = settings.passes or (CPU_PASSES if computes_on_cpu(settings) else 1)
    if settings.backend == "simulated":  # sleeps
        return passes, max(passes, cores)
    return min(passes, cores), cores


def limits_of(settings: EngineSettings) -> SchedulerLimits:
    return SchedulerLimits(
        batch_tokens_max=settings.batch_tokens_max or batch_tokens_default(),
        batch_items_max=settings.batch_items_max,
        queue_tokens_max=settings.queue_tokens_max,
        queue_items_max=settings.queue_items_max,
    )


def leave_if_broken(stopped: Future[None]) -> None:
    """Without its first thread a pod would be ready and compute nothing: whoever watches it starts it anew."""
    if stopped.exception() is not None:
        leave(1)


async def until_closed(lane: Lane) -> None:
    """Waits until the backend has released its device, but not for a pass that still runs."""
    deadline = time.monotonic() + CLOSE_S_MAX
    while lane.loaded.done() and not lane.stopped.done() and lane.running_since is None and time.monotonic() < deadline:
        await asyncio.sleep(0.005)


async def serve(settings: EngineSettings, stop: asyncio.Event | None = None) -> None:
    """Until `stop` is set, or the process gets a signal if none is given."""
    checkpoint = Checkpoint.read(
        locate(settings.model, settings.revision or None),
        name=settings.served_model_name or settings.model,
        pooling=settings.pooling,
        score_tokens=settings.score_tokens,
    )
    settings = replace(settings, backend=chosen_backend(settings, checkpoint))
    check_loadable(settings, checkpoint)
    limits = limits_of(settings)
    settings = replace(settings, batch_tokens_max=limits.batch_tokens_max)
    passes, cores = concurrency(settings)
    scheduler = Scheduler(limits, passes=passes, cores=cores)
    lane = Lane(
        lambda: load_backend(replace(settings, threads=cores), checkpoint),
        scheduler,
        asyncio.get_running_loop(),
        warm_up_batches(limits, checkpoint.sequence_tokens_max),
        threads=passes,
        has_express=computes_on_cpu(settings),
    )
    servicer = EngineServicer(scheduler, [lane])
    keys = load_api_keys(settings.api_keys, settings.api_keys_file)
    server = Server(settings.listen, drain_s_max=settings.drain_s_max, tls=settings.tls, keys=keys, stop=stop)
    server.add("heddle.v1.EngineService", add_EngineServiceServicer_to_server, servicer)

    async def warm_up() -> None:
        lane.start()
        backend = await asyncio.wrap_future(lane.loaded)
        lane.stopped.add_done_callback(leave_if_broken)
        servicer.serve_model(described(checkpoint, backend, settings, limits.batch_tokens_max), backend.outputs)

    async def close() -> None:
        scheduler.close()
        await until_closed(lane)

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
