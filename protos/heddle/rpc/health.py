"""Waits for a starting service with grpc.health.v1, which needs no key. Called by `heddle.rpc.pod` and `heddle
serve`."""

import asyncio
import logging
from collections.abc import Callable

import grpc

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import STREAM_BROKEN

log = logging.getLogger(__name__)

# How long a client waits for a starting pod before it connects again.
STARTING_S_MAX = 1.0


async def wait_while_starting(
    refusal: HeddleError | None, open_channel: Callable[[], grpc.aio.Channel], service: str
) -> bool:
    """Returns True when a pod becomes ready that refused its client because it was starting. Returns False at once for
    any other refusal, and after STARTING_S_MAX."""
    if refusal is None or refusal.kind is not ErrorKind.UNAVAILABLE or not refusal.retry_after_ms:
        return False
    try:
        async with open_channel() as channel:
            return await wait_until_serving(channel, service, STARTING_S_MAX)
    except Exception as error:  # noqa: BLE001 - the next attempt to connect reports it, if it stays
        log.debug("cannot wait for a pod that is starting: %r", error)
        return False


async def wait_until_serving(channel: grpc.aio.Channel, service: str, seconds_max: float) -> bool:
    """Returns True when the service becomes ready. Returns False if it was ready already, after `seconds_max`, or if
    the server cannot tell."""
    try:
        from grpc_health.v1 import health_pb2, health_pb2_grpc
    except ModuleNotFoundError:  # a client without the extra `serving`
        return False
    was_starting = False
    request = health_pb2.HealthCheckRequest(service=service)
    try:
        async with asyncio.timeout(seconds_max):
            async for answer in health_pb2_grpc.HealthStub(channel).Watch(request):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return was_starting
                was_starting = True
    except (*STREAM_BROKEN, TimeoutError):
        pass
    return False
