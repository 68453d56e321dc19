"""Starts a tokenizer pod: settings, tokenizer, engine pods, servicer, server. See `tokenizer-svc --help`."""

import asyncio
import os
import sys
from dataclasses import replace
from typing import NoReturn

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import locate, name_of
from heddle.machine import keep_freed_memory
from heddle.rpc.keys import ApiKeys
from heddle.rpc.lifecycle import Server
from heddle.rpc.process import run, use_batch_scheduling
from heddle.rpc.settings import ConfigurationError, load
from heddle.rpc.start_times import end_phase
from heddle.rpc.telemetry import serve_metrics, start_logging
from heddle.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.engines import Engines
from tokenizer_svc.servicer import InferenceServicer
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.tei.services import add_services
from tokenizer_svc.text.tokenizer import Tokenizer

# An answer of a thousand vectors takes blocks of 1.5 MiB. Mapping new pages for them would cost as much as the rest.
FREED_BYTES_KEPT = 64 << 20


def main() -> NoReturn:
    settings = load(TokenizerSettings, sys.argv[1:], os.environ, prog="tokenizer-svc", env_prefix="HEDDLE_TOKENIZER_")
    start_logging("tokenizer_svc", log_format=settings.log_format, log_level=settings.log_level)
    end_phase("imports")
    use_batch_scheduling()
    keep_freed_memory(FREED_BYTES_KEPT)
    run(lambda: serve(settings))


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
    encoder = Encoder(tokenizer, waiting_bytes_max=settings.queue_bytes_max)
    keys = ApiKeys.load(settings.api_keys, settings.api_keys_file)
    server = Server(
        settings.listen,
        drain_s_max=settings.drain_s_max,
        tls=settings.tls,
        keys=keys,
        stop=stop,
        listen_after=settings.listen_after,
    )
    access = settings.engines_access
    access.check()
    fingerprint = checkpoint.tokenizer_fingerprint
    engines = Engines(settings.engines, fingerprint, access=access, on_change=server.report_ready)
    servicer = InferenceServicer(checkpoint, tokenizer, encoder, engines, settings)
    server.add("heddle.v1.InferenceService", add_InferenceServiceServicer_to_server, servicer)
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

    if settings.metrics_port is not None:
        serve_metrics(settings.metrics_port)
    await server.serve(
        warm_up=warm_up,
        announce_draining=announce_draining,
        until_idle=until_idle,
        close=close,
    )


if __name__ == "__main__":
    main()
