"""The lifecycle of a gRPC server, as tokenizer and engine pods are: listen, warm up, serve until asked to stop, drain.

    async def serve(settings: EngineSettings) -> None:
        server = Server(settings.listen, drain_s_max=settings.drain_s_max)
        server.add("heddle.v1.EngineService", add_EngineServiceServicer_to_server, EngineServicer(...))
        await server.serve(warm_up=..., announce_draining=..., until_idle=..., close=...)

`heddle.rpc.process` runs such a coroutine as a process.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from heddle.machine import return_freed_memory
from heddle.rpc.channels import server_options
from heddle.rpc.credentials import ServerTls, server_credentials
from heddle.rpc.interceptor import Interceptor
from heddle.rpc.keys import NO_KEYS, ApiKeys
from heddle.rpc.listening import check_address, wait_for_sockets
from heddle.rpc.message_limits import REQUEST_BYTES_MAX
from heddle.rpc.process import stop_on_signal, tune_garbage_collector
from heddle.rpc.settings import ConfigurationError
from heddle.rpc.start_times import describe_start, end_phase
from heddle.rpc.waiting import done_before
from heddle.telemetry.metrics import Distribution

Callback = Callable[[], Awaitable[None]]
ServicerType = TypeVar("ServicerType")

# After draining, the time for answers that are already on their way to a socket.
CLOSE_S = 1.0

log = logging.getLogger(__name__)


async def nothing() -> None:
    """The default callback."""


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # not typed
    """grpc.health.v1 with all of its methods: the library's servicer lacks `List`."""

    def __init__(self) -> None:
        super().__init__()
        self._statuses: dict[str, Any] = {health.OVERALL_HEALTH: health_pb2.HealthCheckResponse.SERVING}

    async def set(self, service: str, status: Any) -> None:
        self._statuses[service] = status
        await super().set(service, status)

    async def List(
        self, request: health_pb2.HealthListRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthListResponse:
        response = health_pb2.HealthCheckResponse
        statuses = {service: response(status=status) for service, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses)


class Server:
    """A gRPC server with health, reflection and the interceptor. Made and used inside one event loop.

    Health follows grpc.health.v1: the name "" is SERVING while a port is open (alive), the name of each service only
    between warm-up and draining (ready).
    """

    def __init__(
        self,
        listen: Sequence[str],
        *,
        drain_s_max: float,
        drain_delay_s: float = 0.0,
        tls: ServerTls | None = None,
        keys: ApiKeys = NO_KEYS,
        stop: asyncio.Event | None = None,
        listen_after: Sequence[str] = (),
        message_bytes_max: int = REQUEST_BYTES_MAX,
    ) -> None:
        """`listen` holds `host:port` (port 0: any free one) and `unix:/path`; `tls` and `keys` apply to the former.
        `stop` replaces the signals. `listen_after` holds sockets that must exist first (see `listening`).
        `message_bytes_max` limits a client's messages."""
        self.listen = listen
        self.drain_s_max = drain_s_max
        self.drain_delay_s = drain_delay_s  # between failing health checks and draining
        self._tls = tls
        self.addresses: list[str] = []
        self._stop = stop or stop_on_signal()
        self._listen_after = listen_after
        self._services: list[str] = []
        self._serving = False  # between warm-up and draining
        self.is_ready = False  # the health of the services
        self._reports: set[asyncio.Task[None]] = set()
        self._health = HealthServicer()
        self._interceptor = Interceptor(
            open_services=frozenset({health.SERVICE_NAME, reflection.SERVICE_NAME}),
            keys=keys,
            keyless_services=frozenset({health.SERVICE_NAME}),
        )
        self._server = grpc.aio.server(interceptors=[self._interceptor], options=server_options(message_bytes_max))

    @property
    def calls(self) -> Mapping[tuple[str, str], Distribution]:
        """Seconds of calls, by method and status."""
        return self._interceptor.calls

    def add(
        self,
        service: str,
        register: Callable[[ServicerType, grpc.aio.Server], object],
        servicer: ServicerType,
        *,
        probes: Sequence[str] = (),
    ) -> None:
        """`service` is the full name, such as heddle.v1.EngineService; `register` the generated add_..._to_server.
        `probes` are methods that answer before the pod is ready, and without a key."""
        register(servicer, self._server)
        self._services.append(service)
        self._interceptor.probes.update(f"/{service}/{method}" for method in probes)

    def report_ready(self, ready: bool) -> None:
        """Reports whether the services that this one depends on are available. No effect during warm-up and draining.
        Calls are accepted all the same: the others may be back in time."""
        if self._serving:
            report = asyncio.create_task(self._set_ready(ready=ready))
            self._reports.add(report)
            report.add_done_callback(self._reports.discard)

    async def serve(
        self,
        *,
        warm_up: Callback = nothing,
        announce_draining: Callback = nothing,
        until_idle: Callback = nothing,
        close: Callback = nothing,
    ) -> None:
        """Runs from listening to closing. Raises what `warm_up` raises, after closing. A stop request ends it."""
        try:
            if not await done_before(self._stop, wait_for_sockets(self._listen_after)):
                return
            end_phase("wait")
            await self._open()
            if await done_before(self._stop, warm_up()):
                tune_garbage_collector()
                trimming = asyncio.create_task(return_freed_memory())
                log.info("ready after %s", describe_start())
                self._serving = True
                await self._set_ready(ready=True)
                await self._stop.wait()
                trimming.cancel()
                self._serving = False
                await self._drain(announce_draining, until_idle)
        finally:
            await self._server.stop(CLOSE_S)
            await close()

    async def _open(self) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*self._services, health.SERVICE_NAME], self._server)
        await self._set_ready(ready=False)
        if not self.listen:
            raise ConfigurationError("no address to listen on: set listen")
        for address in self.listen:
            check_address(address)  # check all before binding the first
        addresses = [self._bind(address) for address in self.listen]
        await self._server.start()
        self.addresses = addresses
        clients = f", clients need a certificate of {self._tls.ca}" if self._tls and self._tls.ca else ""
        tls = f" with TLS ({self._tls.cert}{clients})" if self._tls else ""
        log.info("listening on %s%s", ", ".join(self.addresses), tls)
        end_phase("listen")

    def _bind(self, address: str) -> str:
        """Returns the address with the bound port. Raises ConfigurationError."""
        try:
            if self._tls and not address.startswith("unix:"):
                port = self._server.add_secure_port(address, server_credentials(self._tls))
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError as error:  # taken since the check
            raise ConfigurationError(f"cannot listen on {address}: {error}") from error
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def _set_ready(self, *, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse
        self.is_ready = ready
        self._interceptor.ready |= ready  # calls that arrive during draining are still answered
        for service in self._services:
            await self._health.set(service, status.SERVING if ready else status.NOT_SERVING)

    async def _drain(self, announce_draining: Callback, until_idle: Callback) -> None:
        await self._set_ready(ready=False)
        try:
            async with asyncio.timeout(self.drain_delay_s + self.drain_s_max):
                # Streams that leave now could come back: their proxy may not have noticed yet.
                await asyncio.sleep(self.drain_delay_s)
                await announce_draining()
                await until_idle()
                await self._interceptor.until_idle()
        except TimeoutError:
            log.warning("still busy after draining for %g s: closing", self.drain_s_max)
