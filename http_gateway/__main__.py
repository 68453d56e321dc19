"""Starts a gateway: settings, clients of the tokenizer pods, app, HTTP server. `http-gateway --help` lists settings."""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from heddle.machine import keep_freed_memory
from heddle.rpc.keys import ApiKeys
from heddle.rpc.listening import wait_for_sockets
from heddle.rpc.process import run, stop_on_signal, tune_garbage_collector, use_batch_scheduling
from heddle.rpc.settings import ConfigurationError, load, suggestion
from heddle.rpc.start_times import describe_start, end_phase
from heddle.rpc.telemetry import start_logging
from heddle.rpc.waiting import done_before
from http_gateway.admission import Admission
from http_gateway.api.baseten_paths import default_path, resolve_path
from http_gateway.api.families import OPENAI
from http_gateway.api.routes import build_routes
from http_gateway.api.served_models import ServedModels
from http_gateway.app import App
from http_gateway.callers import Callers
from http_gateway.settings import GatewaySettings
from http_gateway.web.cors import Cors
from http_gateway.web.routing import Route, Router
from http_gateway.web.server import HttpServer

# An answer of a thousand vectors takes a few blocks of 2 MiB, and fresh pages would cost as much as writing it.
FREED_BYTES_KEPT = 64 << 20

log = logging.getLogger("http_gateway")  # __name__ is __main__ here


def main() -> NoReturn:
    settings = load(GatewaySettings, sys.argv[1:], os.environ, prog="http-gateway", env_prefix="HEDDLE_GATEWAY_")
    start_logging("http_gateway", log_format=settings.log_format, log_level=settings.log_level)
    end_phase("imports")
    use_batch_scheduling()
    keep_freed_memory(FREED_BYTES_KEPT)
    run(lambda: serve(settings))


async def serve(settings: GatewaySettings, stop: asyncio.Event | None = None) -> None:
    """Runs until `stop` is set, or until a signal if no event is given."""
    stop = stop or stop_on_signal()
    models = ServedModels(
        settings.targets_by_model, strict_names=settings.strict_model_names, access=settings.tokenizers_access
    )
    routes = with_root(build_routes(models, settings), settings.default_route)
    check_default_route(settings.default_route, routes)
    app = App(
        Router(routes, OPENAI, lambda path: resolve_path(path, settings.default_route or default_path(models))),
        Callers(
            ApiKeys.load(settings.api_keys, settings.api_keys_file), settings.best_priority, settings.trusted_proxies
        ),
        Admission(
            requests_max=settings.requests_max,
            bodies_bytes_max=settings.bodies_bytes_max,
            answers_bytes_max=settings.answers_bytes_max,
        ),
        over_limit_status=int(settings.over_limit_status) if settings.over_limit_status else None,
        compressed_bytes_min=settings.compressed_bytes_min,
        body_bytes_max=settings.request_bytes_max,
    )
    server = HttpServer(
        Cors(settings.cors_origins, app.answer, OPENAI).answer if settings.cors_origins else app.answer,
        host=settings.host,
        port=settings.port,
        connections_max=settings.connections_max,
        body_bytes_max=settings.request_bytes_max,
        timeout_s=settings.timeout_s,
        stall_s_max=settings.stall_s_max,
        tls=settings.tls,
        unix_socket=settings.unix_socket,
    )
    if not await done_before(stop, wait_for_sockets(settings.listen_after)):
        return
    end_phase("wait")
    await models.start()
    tune_garbage_collector()
    reporting = asyncio.create_task(report_ready(models))
    try:
        await server.serve(stop, settings.drain_s_max, models.announce_draining)
    finally:
        reporting.cancel()
        await models.close()


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
