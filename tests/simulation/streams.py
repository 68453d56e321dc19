"""Stands in for grpc.aio over the simulated network; everything above is real.

What the stubs serialize travels as bytes over a `Link`. Calls end as those of gRPC do, with its exceptions.
"""

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Self
from unittest.mock import patch

import grpc

from tests.simulation.network import Link, Network
from tests.simulation.virtual_time import PROCESS, Process

# What a write takes: meanwhile more gathers for the next frame.
WRITE_S = 30e-6


class Status(NamedTuple):
    code: grpc.StatusCode
    details: str = ""
    trailing: tuple[tuple[str, Any], ...] = ()

    def error(self) -> BaseException:
        if self.code is grpc.StatusCode.CANCELLED:
            return asyncio.CancelledError()
        return grpc.aio.AioRpcError(self.code, grpc.aio.Metadata(), grpc.aio.Metadata(*self.trailing), self.details)


OK = Status(grpc.StatusCode.OK)
CANCELLED = Status(grpc.StatusCode.CANCELLED)


def unavailable(details: str) -> Status:
    return Status(grpc.StatusCode.UNAVAILABLE, details)


class Call:
    """A call at its client, and what its server needs to answer it. None ends the messages of a direction."""

    def __init__(self, link: Link, method: str, metadata: Any, serialize: Any, parse: Any) -> None:
        self.link = link
        self.method = method
        self.invocation_metadata = metadata
        self.requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.responses: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.status: Status | None = None  # once the client knows it
        self.is_over = False  # at the server
        self.task: asyncio.Task[None] | None = None  # of the server
        self._serialize = serialize
        self._parse = parse
        link.on_lost[link.client].append(lambda: self.finish(unavailable("the connection is lost")))
        link.on_lost[link.server].append(self.abandon)

    async def write(self, message: Any) -> None:
        await asyncio.sleep(WRITE_S)
        if self.status is not None:
            raise self.status.error()
        self.carry(self.link.client, self.link.server, self.requests, self._serialize(message))

    async def read(self) -> Any:
        data = await take(self.responses)
        if data is not None:
            return self._parse(data)
        if self.status is not None and self.status != OK:
            raise self.status.error()
        return grpc.aio.EOF

    def cancel(self) -> None:
        if self.status is None:
            self.finish(CANCELLED)
            self.link.send(self.link.server, self.abandon)

    def carry(self, sender: Process, receiver: Process, to: "asyncio.Queue[bytes | None]", data: bytes) -> None:
        self.link.network.trace("sent", f"{sender.name}>{receiver.name}", len(data), zlib.crc32(data))
        self.link.send(receiver, to.put_nowait, data)

    def finish(self, status: Status) -> None:
        """At the client."""
        if self.status is None:
            self.status = status
            self.responses.put_nowait(None)

    def abandon(self) -> None:
        """At the server: the client wants it no more, or is gone."""
        self.is_over = True
        self.requests.put_nowait(None)
        if self.task is not None:
            self.task.cancel()

    def end(self, status: Status) -> None:
        """At the server."""
        self.is_over = True
        self.link.send(self.link.client, self.finish, status)


async def take(messages: "asyncio.Queue[bytes | None]") -> bytes | None:
    data = await messages.get()
    if data is None:
        messages.put_nowait(None)  # for the next who reads
    return data


class Channel:
    """Stands in for grpc.aio.Channel. Its first call is unary: the handshake of a pod."""

    def __init__(self, network: Network, target: str, options: Any = None) -> None:
        self._network = network
        self._target = target.removeprefix("ipv4:")
        self._process = PROCESS.get()
        self._link: Link | None = None
        self._calls: list[Call] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for call in self._calls:
            call.cancel()
        if self._link is not None:
            self._link.break_off()

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        async def invoke(request: Any, metadata: Any = ()) -> Any:
            await asyncio.sleep(self._network.delay_s())
            server = self._network.servers.get(self._target)
            if server is None or not (server.is_listening and server.process.alive):
                raise unavailable("connection refused").error()
            self._link = Link(self._network, self._process, server.process)
            call = self._begin(self._link, method, metadata, request_serializer, response_deserializer)
            try:
                await call.write(request)
                return await call.read()
            finally:
                call.cancel()

        return invoke

    def stream_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        return lambda metadata=(): self._begin(self._link, method, metadata, request_serializer, response_deserializer)

    def _begin(self, link: Any, *of: Any) -> Call:
        call = Call(link, *of)
        self._calls.append(call)
        if not link.is_up:
            call.finish(unavailable("the connection is lost"))
        link.send(link.server, self._network.servers[self._target].accept, call)
        return call


class Server:
    """Stands in for grpc.aio.Server."""

    def __init__(self, network: Network, interceptors: Any, options: Any = None) -> None:
        self.process = PROCESS.get()
        self.is_listening = False
        self._network = network
        [self._boundary] = interceptors
        self._handlers: list[Any] = []
        self._running: dict[Call, asyncio.Task[None]] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """The same handlers once more."""

    def add_insecure_port(self, address: str) -> int:
        self._network.servers[address] = self
        return int(address.rpartition(":")[2])

    async def start(self) -> None:
        self.is_listening = True

    async def stop(self, grace: float | None) -> None:
        self.is_listening = False
        if self._running:
            await asyncio.wait(self._running.values(), timeout=grace)
        for call in self._running:
            call.end(unavailable("the server has stopped"))
            call.abandon()
        if self._running:
            await asyncio.wait(self._running.values())

    def accept(self, call: Call) -> None:
        if not self.is_listening:
            call.end(unavailable("the server stops"))
        elif not call.is_over:
            call.task = self._running[call] = self._network.loop.create_task(self._serve(call))

    async def _serve(self, call: Call) -> None:
        context = ServerContext(call)
        status = OK
        try:
            handler = await self._boundary.intercept_service(self._find, context)
            context.parse, context.serialize = handler.request_deserializer, handler.response_serializer
            if handler.request_streaming:
                await handler.stream_stream(None, context)
            elif (request := await take(call.requests)) is not None:
                context.send(await handler.unary_unary(request, context))
        except grpc.aio.AbortError:
            status = context.status
        except asyncio.CancelledError:
            status = CANCELLED
        finally:
            del self._running[call]
        call.end(status)

    async def _find(self, context: "ServerContext") -> Any:
        return next(found for handlers in self._handlers if (found := handlers.service(context)))


class ServerContext:
    """Stands in for grpc.aio.ServicerContext, and for grpc.HandlerCallDetails."""

    def __init__(self, call: Call) -> None:
        self.method = call.method
        self.status = OK
        self.parse: Any = None
        self.serialize: Any = None
        self._call = call

    async def read(self) -> Any:
        data = await take(self._call.requests)
        return grpc.aio.EOF if data is None else self.parse(data)

    async def write(self, message: Any) -> None:
        await asyncio.sleep(WRITE_S)
        if self._call.is_over:
            raise grpc.aio.UsageError("the call is over")
        self.send(self.serialize(message))

    def send(self, data: bytes) -> None:
        self._call.carry(self._call.link.server, self._call.link.client, self._call.responses, data)

    async def abort(self, code: grpc.StatusCode, details: str, trailing: Any = ()) -> None:
        self.status = Status(code, details, tuple(trailing))
        raise grpc.aio.AbortError

    def peer(self) -> str:
        return f"ipv4:{self._call.link.client.name}:1"

    def invocation_metadata(self) -> Any:
        return self._call.invocation_metadata

    def time_remaining(self) -> None:
        """Calls have no deadline here; items have."""

    def cancelled(self) -> bool:
        return self._call.is_over

    def code(self) -> grpc.StatusCode:
        return self.status.code


@contextmanager
def grpc_over(network: Network) -> Iterator[None]:
    with (
        patch.object(grpc.aio, "insecure_channel", partial(Channel, network)),
        patch.object(grpc.aio, "server", partial(Server, network)),
    ):
        yield
