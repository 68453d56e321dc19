"""The interceptor around every handler of a server: checks keys and deadlines, measures calls, and converts errors.

`heddle.rpc.lifecycle.Server` adds it to each server. A HeddleError becomes its gRPC status, with the error itself in
the trailing metadata. Any other exception is a bug: its traceback goes to the log.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from heddle.rpc.credentials import AUTHORIZATION
from heddle.rpc.deadlines import deadline_exceeded
from heddle.rpc.errors import ErrorKind, HeddleError, abort
from heddle.rpc.keys import NO_KEYS, ApiKeys, check_key
from heddle.rpc.message_bytes import serialize
from heddle.rpc.message_limits import MESSAGE_BYTES_MAX
from heddle.rpc.unary import REQUEST_ID_KEY, TRACEPARENT_KEY
from heddle.rpc.waiting import poll_until
from heddle.telemetry.logs import REQUEST_ID_CHARACTERS_MAX, request_id, traceparent
from heddle.telemetry.metrics import Distribution
from heddle.telemetry.traceparent import read_traceparent

# Streams that stay open as long as their client: their duration is no latency, so it is not measured.
LASTING = frozenset({"Infer", "Watch", "ServerReflectionInfo"})

STATUS_NAMES = {status.value[0]: status.name.lower() for status in grpc.StatusCode}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Enter: TypeAlias = Callable[[str, Context], AbstractAsyncContextManager[None]]


class Interceptor(grpc.aio.ServerInterceptor):
    """`open_services` answer from the start, all others once `ready` is set. `keyless_services` need no key."""

    def __init__(
        self,
        open_services: frozenset[str],
        *,
        keys: ApiKeys = NO_KEYS,
        keyless_services: frozenset[str] = frozenset(),
        answer_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        """A unary answer over `answer_bytes_max` becomes TOO_LARGE."""
        self.open_services = open_services
        self.keys = keys
        self.keyless_services = keyless_services
        self.answer_bytes_max = answer_bytes_max
        self.probes: set[str] = set()  # full names of methods that answer from the start, and without a key
        self.ready = False
        self.unary_running = 0
        self.calls: dict[tuple[str, str], Distribution] = {}  # seconds by method and status
        self._guarded: dict[str, Handler] = {}

    async def until_idle(self) -> None:
        """Returns when no unary call is running. Streams have an `until_idle` of their own."""
        await poll_until(lambda: not self.unary_running)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        method = handler_call_details.method
        if method not in self._guarded:
            handler = await continuation(handler_call_details)
            if handler is None:  # gRPC answers UNIMPLEMENTED; caching invented names would be a leak
                return None
            self._guarded[method] = self.guard(method, handler)
        return self._guarded[method]

    def guard(self, method: str, handler: Handler) -> Handler:
        """Wraps a handler."""
        kind = f"{arity(handler.request_streaming)}_{arity(handler.response_streaming)}"
        behaviour = getattr(handler, kind)
        enter = functools.partial(self.choose_context(method, is_stream="stream" in kind), method)
        wrap = getattr(grpc, f"{kind}_rpc_method_handler")
        if "stream" in kind:
            serializer = pass_bytes(handler.response_serializer) if handler.response_streaming else None
            wrapped = wrap_behaviour(
                behaviour, enter, finish=identity if handler.response_streaming else self.serialize
            )
            guarded: Handler = wrap(wrapped, handler.request_deserializer, serializer)
        else:
            begin = functools.partial(parse, handler.request_deserializer)
            guarded = wrap(wrap_behaviour(behaviour, enter, begin=begin, finish=self.serialize), None, None)
        return guarded

    def serialize(self, answer: Any) -> bytes:
        """Serializes here, where an answer that is too large can still become a clear error."""
        return serialize(answer, self.answer_bytes_max)

    def choose_context(self, method: str, *, is_stream: bool) -> Enter:
        if not is_stream:
            return self.unary
        return self.admitted if method.rpartition("/")[2] in LASTING else self.measured

    @asynccontextmanager
    async def unary(self, method: str, context: Context) -> AsyncIterator[None]:
        request_id.set(read_request_id(context))
        traceparent.set(read_traceparent(find_metadata(context, TRACEPARENT_KEY)))
        self.unary_running += 1
        try:
            async with self.measured(method, context):
                yield
        finally:
            self.unary_running -= 1

    @asynccontextmanager
    async def measured(self, method: str, context: Context) -> AsyncIterator[None]:
        started = time.perf_counter()
        code = ""
        try:
            async with self.admitted(method, context):
                yield
        except asyncio.CancelledError:  # gRPC cancels the handler without setting a status
            code = "cancelled"
            raise
        finally:
            self._record(method, code or status_name(context), time.perf_counter() - started)

    def _record(self, method: str, code: str, seconds: float) -> None:
        calls = self.calls.get((method, code))
        if calls is None:
            calls = self.calls[method, code] = Distribution()
        calls.observe(seconds)

    @asynccontextmanager
    async def admitted(self, method: str, context: Context) -> AsyncIterator[None]:
        try:
            self.admit(method, context)
            yield
        except grpc.aio.AbortError:
            raise
        except DecodeError as error:  # from a handler that reads a stream
            await abort(context, not_a_message(error))
        except Exception as exception:  # noqa: BLE001 - this is the boundary
            await abort(context, HeddleError.from_exception(exception))

    def admit(self, method: str, context: Context) -> None:
        if method in self.probes:
            return
        service = method.split("/")[1]
        if self.keys and service not in self.keyless_services:
            check = functools.partial(self.check_key, context)
            check()
            check_key.set(check)
        if not self.ready and service not in self.open_services:
            raise HeddleError(ErrorKind.UNAVAILABLE, "the server is starting", retry_after_ms=1_000)
        time_remaining: float | None = context.time_remaining()
        if time_remaining is not None and time_remaining <= 0:
            raise deadline_exceeded()

    def check_key(self, context: Context) -> int:
        """Returns the best priority of the call's key. Raises UNAUTHENTICATED.

        Unix sockets need no key: the permissions of their folder say who may connect."""
        if context.peer().startswith("unix"):
            return 0
        key = self.keys.find(find_metadata(context, AUTHORIZATION))
        return (key.best_priority if key else None) or 0


def arity(streaming: bool) -> str:
    return "stream" if streaming else "unary"


def pass_bytes(serialize: Any) -> Callable[[Any], bytes]:
    """A serializer for handlers that write serialized messages."""
    return lambda message: message if isinstance(message, bytes) else serialize(message)


def parse(deserialize: Callable[[bytes], Any] | None, data: bytes) -> Any:
    """Parses here, so that a malformed message is INVALID_INPUT: gRPC would make it UNKNOWN."""
    try:
        return deserialize(data) if deserialize else data
    except DecodeError as error:
        raise not_a_message(error) from error


def not_a_message(error: DecodeError) -> HeddleError:
    return HeddleError(ErrorKind.INVALID_INPUT, f"not a message of this method: {error}")


def identity(message: Any) -> Any:
    return message


def wrap_behaviour(
    behaviour: Any,
    enter: Callable[[Context], AbstractAsyncContextManager[None]],
    *,
    begin: Callable[[Any], Any] = identity,
    finish: Callable[[Any], Any] = identity,
) -> Any:
    """Wraps a coroutine function or async generator function, so that it runs inside `enter`. For a coroutine, so do
    `begin`, which converts its request, and `finish`, which converts its answer."""

    async def answer(request: Any, context: Context) -> Any:
        async with enter(context):
            return finish(await behaviour(begin(request), context))

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        async with enter(context):
            async for response in behaviour(request, context):
                yield response

    async def refuse(_: Any, context: Context) -> Any:
        async with enter(context):
            raise HeddleError(ErrorKind.UNIMPLEMENTED, f"{behaviour.__name__} is not implemented by this version")

    if inspect.isasyncgenfunction(behaviour):
        return stream
    # All our handlers are async. One that is not is the generated base class's, so it is not implemented.
    return answer if inspect.iscoroutinefunction(behaviour) else refuse


def status_name(context: Context) -> str:
    """The call's status in lower case: ok unless the interceptor or the handler set another."""
    if context.cancelled():
        return "cancelled"
    code: grpc.StatusCode | int = context.code() or grpc.StatusCode.OK
    return code.name.lower() if isinstance(code, grpc.StatusCode) else STATUS_NAMES[code]


def read_request_id(context: Context) -> str:
    """The request id that the caller sent, or a new one."""
    stated = find_metadata(context, REQUEST_ID_KEY)
    return secrets.token_hex(8) if stated is None else stated[:REQUEST_ID_CHARACTERS_MAX]


def find_metadata(context: Context, name: str) -> str | None:
    """Finds a value in the caller's metadata."""
    for key, value in context.invocation_metadata() or ():
        if key == name and isinstance(value, str):
            return value
    return None
