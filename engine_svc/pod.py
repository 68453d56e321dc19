"""Runs an engine pod: loads the model, connects worker, scheduler and server, and serves. `engine_svc.__main__` calls
this."""

import asyncio
import contextlib
import gc
from concurrent.futures import Future
from dataclasses import replace

from engine_svc.backends.loading import load_backend
from engine_svc.batch_runner import warm_up_batches
from engine_svc.metrics import EngineMetrics
from engine_svc.scheduler import Scheduler
from engine_svc.servicer import EngineServicer
from engine_svc.settings import EngineSettings
from engine_svc.spans import BatchSpans
from engine_svc.startup import (
    choose_concurrency,
    computes_on_cpu,
    describe_model,
    make_limits,
    resolve,
)
from engine_svc.worker import Worker
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import locate, name_of
from heddle.rpc.keys import ApiKeys
from heddle.rpc.lifecycle import Server
from heddle.rpc.metrics import collect_calls, collect_streams
from heddle.rpc.process import leave
from heddle.rpc.start_times import end_phase
from heddle.rpc.waiting import poll_until
from heddle.telemetry.metrics import Metrics
from heddle.telemetry.metrics_server import serve_metrics
from heddle.telemetry.process_metrics import ProcessMetrics, model_labels
from heddle.telemetry.tracing import close_tracing, start_tracing
from heddle.v1.engine_pb2_grpc import add_EngineServiceServicer_to_server

# Seconds that a backend has to close. `Limits` in `heddle.cli.supervisor` allows for them.
CLOSE_S_MAX = 10.0


async def serve(settings: EngineSettings, stop: asyncio.Event | None = None) -> None:
    """Runs until `stop` is set, or without it until the process gets a signal."""
    checkpoint = Checkpoint.read(
        locate(settings.model, settings.revision or None),
        name=settings.served_model_name or name_of(settings.model),
        pooling=settings.pooling,
        score_tokens=settings.score_tokens,
    )
    end_phase("checkpoint")
    settings, device = resolve(settings, checkpoint)
    gc.freeze()  # a collection over torch's objects would take 0.1 s
    limits = make_limits(settings, device)
    on_cpu = computes_on_cpu(settings, device)
    passes, cores = choose_concurrency(settings, device)
    runs_in_turn = settings.backend == "torch" and device.kind == "cuda"
    scheduler = Scheduler(
        limits, passes=passes, cores=cores, runs_in_turn=runs_in_turn, queue_s_max=settings.queue_s_max
    )
    tracing = start_tracing("heddle-engine", settings.trace_collector, settings.trace_ratio)
    worker = Worker(
        lambda: load_backend(replace(settings, threads=cores), checkpoint),
        scheduler,
        asyncio.get_running_loop(),
        warm_up_batches(limits, checkpoint.sequence_tokens_max, compiles_shapes=on_cpu),
        threads=passes,
        has_express=on_cpu,
        on_pass=BatchSpans(tracing, checkpoint.name) if tracing else None,
    )
    servicer = EngineServicer(scheduler, [worker], tracing, calls_bytes_max=settings.calls_bytes_max)
    server = make_server(settings, stop)
    server.add("heddle.v1.EngineService", add_EngineServiceServicer_to_server, servicer)

    async def warm_up() -> None:
        worker.start()
        backend = await asyncio.wrap_future(worker.loaded)
        worker.stopped.add_done_callback(leave_if_broken)
        servicer.serve_model(describe_model(checkpoint, backend, device, settings), backend.outputs)

    async def close() -> None:
        scheduler.close()
        await wait_until_closed(worker)
        await close_tracing(tracing)

    process = ProcessMetrics("engine", lambda: model_labels(servicer.model))
    metrics = Metrics(
        process.collect,
        lambda: collect_calls(server.calls),
        lambda: collect_streams(servicer.stream),
        EngineMetrics(scheduler, worker, with_tei_names=settings.tei_metrics).collect,
    )
    with (
        process.measure(),
        serve_metrics(metrics, settings.metrics_host, settings.metrics_port, settings.listen),
    ):
        await server.serve(
            warm_up=warm_up,
            announce_draining=servicer.stream.announce_draining,
            until_idle=servicer.stream.until_idle,
            close=close,
        )


def make_server(settings: EngineSettings, stop: asyncio.Event | None) -> Server:
    return Server(
        settings.listen,
        drain_s_max=settings.drain_s_max,
        drain_delay_s=settings.drain_delay_s,
        tls=settings.tls,
        keys=ApiKeys.load(settings.api_keys, settings.api_keys_file),
        stop=stop,
        message_bytes_max=settings.message_bytes_max,
    )


def leave_if_broken(stopped: Future[None]) -> None:
    """Ends the process when a worker's thread has died, so that it is restarted. Otherwise the pod would report that it
    is ready but compute nothing."""
    if stopped.exception() is not None:
        leave(1)


async def wait_until_closed(worker: Worker) -> None:
    """Waits until the backend has released its device, but not for a pass that still runs."""

    def has_ended() -> bool:
        return not worker.loaded.done() or worker.stopped.done() or worker.running_since is not None

    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(poll_until(has_ended), CLOSE_S_MAX)
