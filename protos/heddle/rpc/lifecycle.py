"""The lifecycle of a service: listen, warm up, serve until asked to stop, drain, exit.

Called by each `__main__`. The gateway, which is no gRPC server, uses only `run` and `stop_on_signal`.

    def main() -> NoReturn:
        settings = load(EngineSettings, sys.argv[1:], os.environ, prog="engine-svc", env_prefix="HEDDLE_ENGINE_")
        start_logging("engine_svc", log_format=settings.log_format, log_level=settings.log_level)
        run(lambda: serve(settings))

    async def serve(settings: EngineSettings) -> None:
        server = Server(settings.listen, drain_s_max=settings.drain_s_max)
        server.add("heddle.v1.EngineService", add_EngineServiceServicer_to_server, EngineServicer(...))
        await server.serve(warm_up=..., announce_draining=..., until_idle=..., close=...)

Exit codes: 0 after a signal, 2 for the operator's mistake (ConfigurationError), 1 for anything else.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NoReturn, TypeVar

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from heddle.rpc.channels import SERVER_OPTIONS
from heddle.rpc.credentials import ServerTls, server_credentials
from heddle.rpc.interceptor import Interceptor
from heddle.rpc.keys import NO_KEYS, ApiKeys
from heddle.rpc.listening import check_address
from heddle.rpc.settings import EXIT_MISCONFIGURED, ConfigurationError

Callback = Callable[[], Awaitable[None]]
ServicerType = TypeVar("ServicerType")

# After draining, the time for answers that are already on their way to a socket.
CLOSE_S = 1.0

GC_ALLOCATIONS = 50_000

log = logging.getLogger(__name__)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> NoReturn:
    """Runs `main` on uvloop and ends the process with an exit code of the table above."""
    raise_file_limit()
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        runner.run(main())
    except ConfigurationError as error:
        log.critical("%s", error)
        leave(EXIT_MISCONFIGURED)
    except KeyboardInterrupt:
        leave(128 + signal.SIGINT)
    except Exception:
        log.critical("unexpected error: the process ends", exc_info=True)
        leave(1)
    leave(0)


def leave(code: int) -> NoReturn:
    """Ends the process at once: a thread that is loading weights cannot be stopped, and is not worth waiting for."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def raise_file_limit() -> None:
    """A gRPC connection takes three file descriptors, and the usual limit is 1,024."""
    with contextlib.suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def use_batch_scheduling() -> None:
    """Sets Linux's SCHED_BATCH (see sched(7)). Called by gateways and tokenizer pods, before they have threads.

    While a core is free, nothing changes. While none is, such a process does not preempt the engine that computes; it
    waits a few milliseconds and then finds more work to take at once. Beside an engine that filled two cores, it took a
    third less CPU time per request."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def tune_garbage_collector() -> None:
    """Called once, after warm-up. Loaded objects stay, so the garbage collector need not look at them again. Messages
    are many but free of cycles, so it may run less often, which saves an eighth of a loaded pod's CPU time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)


def stop_on_signal(before_leaving: Callable[[], None] = lambda: None) -> asyncio.Event:
    """Returns an event that the first SIGTERM or SIGINT sets. The second ends the process, after `before_leaving`."""
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("%s again: leaving at once", number.name)
            before_leaving()
            leave(128 + number)
        log.info("%s: stopping", number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return stop


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
        tls: ServerTls | None = None,
        keys: ApiKeys = NO_KEYS,
        stop: asyncio.Event | None = None,
    ) -> None:
        """`listen` holds `host:port` (port 0: any free one) and `unix:/path`; `tls` and `keys` apply to the former.
        `stop` replaces the signals."""
        self.listen = listen
        self.drain_s_max = drain_s_max
        self._tls = tls
        self.addresses: list[str] = []
        self._stop = stop or stop_on_signal()
        self._services: list[str] = []
        self._serving = False  # between warm-up and draining
        self._reports: set[asyncio.Task[None]] = set()
        self._health = HealthServicer()
        self._interceptor = Interceptor(
            open_services=frozenset({health.SERVICE_NAME, reflection.SERVICE_NAME}),
            keys=keys,
            keyless_services=frozenset({health.SERVICE_NAME}),
        )
        self._server = grpc.aio.server(interceptors=[self._interceptor], options=SERVER_OPTIONS)

    def add(
        self, service: str, register: Callable[[ServicerType, grpc.aio.Server], object], servicer: ServicerType
    ) -> None:
        """`service` is the full name, such as heddle.v1.EngineService; `register` the generated add_..._to_server."""
        register(servicer, self._server)
        self._services.append(service)

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
            await self._open()
            if await self._warm_up(warm_up):
                self._serving = True
                await self._set_ready(ready=True)
                await self._stop.wait()
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

    async def _warm_up(self, warm_up: Callback) -> bool:
        """Returns False if a stop was requested meanwhile."""
        started = time.monotonic()
        stopping = asyncio.ensure_future(self._stop.wait())
        warming = asyncio.ensure_future(warm_up())
        await asyncio.wait((warming, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not warming.done():
            warming.cancel()
            return False
        warming.result()
        tune_garbage_collector()
        log.info("ready after %.1f s", time.monotonic() - started)
        return True

    async def _set_ready(self, *, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse
        self._interceptor.ready = (
            self._interceptor.ready or ready
        )  # calls that arrive during draining are still answered
        for service in self._services:
            await self._health.set(service, status.SERVING if ready else status.NOT_SERVING)

    async def _drain(self, announce_draining: Callback, until_idle: Callback) -> None:
        await self._set_ready(ready=False)
        try:
            async with asyncio.timeout(self.drain_s_max):
                await announce_draining()
                await until_idle()
                await self._interceptor.until_idle()
        except TimeoutError:
            log.warning("still busy after draining for %g s: closing", self.drain_s_max)
