"""Starts a tokenizer pod: settings, tokenizer, engine pods, servicer, server. See `tokenizer-svc --help`."""

import asyncio
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.description import describe_checkpoint
from heddle.checkpoint.model_source import locate, name_of
from heddle.machine import keep_freed_memory
from heddle.rpc.keys import ApiKeys
from heddle.rpc.lifecycle import Server
from heddle.rpc.metrics import collect_calls, collect_pools, collect_streams
from heddle.rpc.pool import PoolLimits
from heddle.rpc.process import run, use_batch_scheduling
from heddle.rpc.settings import ConfigurationError, load
from heddle.rpc.settings_table import log_settings
from heddle.rpc.start_times import end_phase
from heddle.telemetry.logs import start_logging
from heddle.telemetry.metrics import Collector, Metrics
from heddle.telemetry.metrics_server import serve_metrics
from heddle.telemetry.process_metrics import ProcessMetrics, model_labels
from heddle.telemetry.trace_settings import use_collector
from heddle.telemetry.tracing import Tracing, close_tracing, start_tracing
from heddle.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from tokenizer_svc.counts import TokenizerCounts
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.engines import Engines
from tokenizer_svc.metrics import TokenizerMetrics, collect_unary_engines
from tokenizer_svc.oip.servicer import add_oip
from tokenizer_svc.servicer import InferenceServicer
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.tei.services import add_services
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.unary_engines import UnaryEngines

# An answer of a thousand vectors takes blocks of 1.5 MiB. Mapping new pages for them would cost as much as the rest.
FREED_BYTES_KEPT = 64 << 20


def main() -> NoReturn:
    origins: dict[str, str] = {}
    settings = load(
        TokenizerSettings,
        sys.argv[1:],
        os.environ,
        prog="tokenizer-svc",
        env_prefix="HEDDLE_TOKENIZER_",
        origins=origins,
    )
    start_logging("tokenizer_svc", log_format=settings.log_format, log_level=settings.log_level)
    log_settings(settings, origins)
    end_phase("imports")
    use_batch_scheduling()
    keep_freed_memory(FREED_BYTES_KEPT)
    run(lambda: serve(use_collector(settings, os.environ)))


def replace_default_prompt(checkpoint: Checkpoint, settings: TokenizerSettings) -> Checkpoint:
    """Raises ConfigurationError for the name of a prompt that the checkpoint does not have."""
    name = settings.default_prompt_name
    if name and name not in checkpoint.prompts:
        known = ", ".join(sorted(checkpoint.prompts)) or "none"
        raise ConfigurationError(f"default_prompt_name: {checkpoint.name} has no prompt {name!r}; it has: {known}")
    if settings.default_prompt:
        name = "default"
        checkpoint = replace(checkpoint, prompts={**checkpoint.prompts, name: settings.default_prompt})
    return replace(checkpoint, default_prompt_name=name or checkpoint.default_prompt_name)


def make_engines(
    settings: TokenizerSettings, checkpoint: Checkpoint, on_change: Callable[[bool], None], tracing: Tracing | None
) -> Engines | UnaryEngines:
    """Raises ConfigurationError for a certificate or key that cannot be used."""
    access = settings.engines_access
    access.check()
    own = describe_checkpoint(checkpoint)
    if settings.engine_transport == "unary":
        return UnaryEngines(settings.engines[0], own, access=access, on_change=on_change, tracing=tracing)
    limits = PoolLimits(hedge_share=settings.engines_hedge_share)
    return Engines(settings.engines, own, limits=limits, access=access, on_change=on_change, tracing=tracing)


async def serve(settings: TokenizerSettings, stop: asyncio.Event | None = None) -> None:
    """Serves until `stop` is set, or until a signal if none is given."""
    checkpoint = Checkpoint.read(
        locate(settings.model, settings.revision or None, with_weights=False),
        name=settings.served_model_name or name_of(settings.model),
        pooling=settings.pooling,
        score_tokens=settings.score_tokens,
    )
    checkpoint = replace_default_prompt(checkpoint, settings)
    end_phase("checkpoint")
    tokenizer = Tokenizer.load(checkpoint, settings.end_token)
    end_phase("tokenizer")
    encoder = Encoder(
        tokenizer,
        waiting_bytes_max=settings.queue_bytes_max,
        queue_s_max=settings.queue_s_max,
        counts=TokenizerCounts(with_tei_names=settings.tei_metrics),
    )
    server = make_server(settings, stop)
    tracing = start_tracing("heddle-tokenizer", settings.trace_collector, settings.trace_ratio)

    def report_ready(ready: bool) -> None:
        server.report_ready(ready)
        servicer.stream.announce_load()

    engines = make_engines(settings, checkpoint, report_ready, tracing)
    servicer = InferenceServicer(checkpoint, tokenizer, encoder, engines, settings, tracing=tracing)
    server.add("heddle.v1.InferenceService", add_InferenceServiceServicer_to_server, servicer)
    add_oip(server, servicer, checkpoint, settings.request_inputs_max)
    tei = add_services(server, servicer, tokenizer, encoder, checkpoint=checkpoint, settings=settings)

    async def warm_up() -> None:
        await engines.start()
        await engines.wait_ready()
        end_phase("engines")

    async def announce_draining() -> None:
        await servicer.stream.announce_draining()
        await tei.announce_draining()

    async def until_idle() -> None:
        await servicer.stream.until_idle()
        await tei.until_idle()

    async def close() -> None:
        await encoder.close()
        await engines.close()
        await close_tracing(tracing)

    process = ProcessMetrics("tokenizer", lambda: {**model_labels(engines.model), "model": checkpoint.name})
    metrics = Metrics(process.collect, *list_collectors(server, servicer, encoder, checkpoint.name, engines))
    with (
        process.measure(),
        serve_metrics(metrics, settings.metrics_host, settings.metrics_port, settings.listen),
    ):
        await server.serve(warm_up=warm_up, announce_draining=announce_draining, until_idle=until_idle, close=close)


def make_server(settings: TokenizerSettings, stop: asyncio.Event | None) -> Server:
    return Server(
        settings.listen,
        drain_s_max=settings.drain_s_max,
        drain_delay_s=settings.drain_delay_s,
        tls=settings.tls,
        keys=ApiKeys.load(settings.api_keys, settings.api_keys_file),
        stop=stop,
        listen_after=settings.listen_after,
        message_bytes_max=settings.message_bytes_max,
    )


def list_collectors(
    server: Server, servicer: InferenceServicer, encoder: Encoder, model: str, engines: Engines | UnaryEngines
) -> list[Collector]:
    own = TokenizerMetrics(
        encoder.counts,
        encoder,
        running_requests=lambda: servicer.running_requests,
        answers_bytes=lambda: servicer.answers_bytes,
    )
    collect_engines = (
        functools.partial(collect_unary_engines, model, engines)
        if isinstance(engines, UnaryEngines)
        else functools.partial(collect_pools, {model: engines})
    )
    return [
        own.collect,
        lambda: collect_calls(server.calls),
        lambda: collect_streams(servicer.stream),
        collect_engines,
    ]


if __name__ == "__main__":
    main()
