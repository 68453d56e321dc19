"""Starts a gateway: settings, clients of the tokenizer pods, app, HTTP server. `http-gateway --help` lists settings."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

from heddle.machine import keep_freed_memory, return_freed_memory
from heddle.rpc.keys import ApiKeys
from heddle.rpc.listening import bind_port, inherited_socket, wait_for_sockets
from heddle.rpc.pool import PoolLimits
from heddle.rpc.process import run, stop_on_signal, tune_garbage_collector, use_batch_scheduling
from heddle.rpc.settings import ConfigurationError, load, suggestion
from heddle.rpc.settings_table import log_settings
from heddle.rpc.start_times import describe_start, end_phase
from heddle.rpc.waiting import done_before
from heddle.telemetry.logs import start_logging
from heddle.telemetry.metrics import Metrics
from heddle.telemetry.process_metrics import ProcessMetrics
from heddle.telemetry.trace_settings import use_collector
from heddle.telemetry.tracing import close_tracing, start_tracing
from http_gateway.admission import Admission
from http_gateway.api.families import OPENAI
from http_gateway.api.path_aliases import default_path, resolve_path
from http_gateway.api.routes import build_routes
from http_gateway.api.served_models import ServedModels
from http_gateway.app import App
from http_gateway.callers import Callers
from http_gateway.metrics import GatewayCounts, GatewayMetrics, collect_connections
from http_gateway.settings import GatewaySettings
from http_gateway.spans import HttpSpans
from http_gateway.web.bodies import WaitingBodies
from http_gateway.web.cors import Cors
from http_gateway.web.routing import Route, Router
from http_gateway.web.server import HttpServer, usable_connections

# An answer of a thousand vectors takes a few blocks of 2 MiB, and fresh pages would cost as much as writing it.
FREED_BYTES_KEPT = 64 << 20

log = logging.getLogger("http_gateway")  # __name__ is __main__ here


def main() -> NoReturn:
    origins: dict[str, str] = {}
    settings = load(
        GatewaySettings, sys.argv[1:], os.environ, prog="http-gateway", env_prefix="HEDDLE_GATEWAY_", origins=origins
    )
    start_logging("http_gateway", log_format=settings.log_format, log_level=settings.log_level)
    log_settings(settings, origins)
    end_phase("imports")
    use_batch_scheduling()
    keep_freed_memory(FREED_BYTES_KEPT)
    run(lambda: serve(use_collector(settings, os.environ)))


async def serve(settings: GatewaySettings, stop: asyncio.Event | None = None) -> None:
    """Runs until `stop` is set, or until a signal if no event is given."""
    stop = stop or stop_on_signal()
    tracing = start_tracing("heddle-gateway", settings.trace_collector, settings.trace_ratio)
    models = ServedModels(
        settings.targets_by_model,
        strict_names=settings.strict_model_names,
        limits=PoolLimits(hedge_share=settings.tokenizers_hedge_share),
        access=settings.tokenizers_access,
        tracing=tracing,
    )
    connections_max = usable_connections(settings.connections_max)
    admission, bodies = make_admission(settings), make_bodies(settings, connections_max)
    counts = GatewayCounts()
    process = ProcessMetrics("gateway", lambda: {"model": ",".join(models.names())})
    own = GatewayMetrics(counts, admission, models)
    metrics = Metrics(process.collect, own.collect, lambda: collect_connections(bodies, server.crowd))
    routes = with_root(build_routes(models, settings, metrics), settings.default_route)
    check_default_route(settings.default_route, routes)
    app = App(
        Router(routes, OPENAI, lambda path: resolve_path(path, settings.default_route or default_path(models))),
        read_callers(settings),
        admission,
        over_limit_status=int(settings.over_limit_status) if settings.over_limit_status else None,
        compressed_bytes_min=settings.compressed_bytes_min,
        body_bytes_max=settings.request_bytes_max,
        counts=counts,
        label_model=models.label,
        spans=HttpSpans(tracing, settings) if tracing else None,
        log_body=make_body_log(settings) if settings.log_requests else None,
    )
    operations = None
    if settings.operations_port is not None:
        operations = app.answer_operations, bind_port(settings.host, settings.operations_port)
    server = HttpServer(
        Cors(settings.cors_origins, app.answer, OPENAI).answer if settings.cors_origins else app.answer,
        bind_port(settings.host, settings.port) if settings.listen_fd is None else inherited_socket(settings.listen_fd),
        bodies=bodies,
        connections_max=connections_max,
        body_bytes_max=settings.request_bytes_max,
        timeout_s=settings.timeout_s,
        stall_s_max=settings.stall_s_max,
        tls=settings.tls,
        unix_socket=settings.unix_socket,
        operations=operations,
    )
    if not await done_before(stop, wait_for_sockets(settings.listen_after)):
        return
    end_phase("wait")
    await models.start()
    tune_garbage_collector()
    background = [asyncio.create_task(work) for work in (report_ready(models), return_freed_memory())]
    try:
        with process.measure():
            await server.serve(stop, settings.drain_s_max, models.announce_draining, settings.drain_delay_s)
    finally:
        for task in background:
            task.cancel()
        await models.close()
        await close_tracing(tracing)


def make_admission(settings: GatewaySettings) -> Admission:
    return Admission(
        requests_max=settings.requests_max,
        bodies_bytes_max=settings.bodies_bytes_max,
        answers_bytes_max=settings.answers_bytes_max,
    )


def make_body_log(settings: GatewaySettings) -> Callable[[bytes], None]:
    characters_max = settings.log_request_characters_max
    log.warning("log_requests is set: the log holds up to %d characters of what each caller sends", characters_max)

    def log_body(body: bytes) -> None:
        text = body[: 4 * characters_max].decode(errors="replace")[:characters_max]
        log.info("a body of %d bytes: %s", len(body), text)

    return log_body


def make_bodies(settings: GatewaySettings, connections_max: int) -> WaitingBodies:
    """Leaves half of the connections to probes and to requests that are whole."""
    return WaitingBodies(
        bodies_max=min(settings.waiting_bodies_max, max(1, connections_max // 2)),
        bytes_max=settings.waiting_bodies_bytes_max,
        pause_s_max=settings.body_pause_s_max,
    )


def read_callers(settings: GatewaySettings) -> Callers:
    return Callers(
        ApiKeys.load(settings.api_keys, settings.api_keys_file),
        settings.best_priority,
        settings.trusted_proxies,
        settings.priority_by_objective,
    )


async def report_ready(models: ServedModels) -> None:
    await models.wait_ready()
    end_phase("tokenizers")
    log.info("ready after %s", describe_start())


def check_default_route(path: str, routes: Sequence[Route]) -> None:
    """Raises ConfigurationError for a path that no POST route has."""
    known = [route.path for route in routes if route.method == "POST"]
    if path and path not in known:
        message = f"default_route: there is no POST {path} here{suggestion(path, known)}; one of {', '.join(known)}"
        raise ConfigurationError(message)


def with_root(routes: Sequence[Route], default_route: str) -> list[Route]:
    """Makes POST / the default route, if one is set. Otherwise the body and the model decide."""
    chosen = [route for route in routes if (route.method, route.path) == ("POST", default_route)]
    return [*routes, *(replace(route, path="/") for route in chosen)]


if __name__ == "__main__":
    main()
