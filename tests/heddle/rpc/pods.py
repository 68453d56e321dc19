"""Real pods on real sockets for the tests of the transport: EngineService with a `Submit` of the test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from heddle.rpc.channels import SERVER_OPTIONS, Options
from heddle.rpc.credentials import Metadata, ServerTls
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.interceptor import Interceptor
from heddle.rpc.keys import NO_KEYS, ApiKeys
from heddle.rpc.lifecycle import Server
from heddle.rpc.message_bytes import ENTRY_BYTES_MAX
from heddle.rpc.metrics import collect_pools
from heddle.rpc.pool import Pool, PoolLimits
from heddle.rpc.stream import Cancel, Reply, ServerSubmit, StreamProtocol, Submit, nothing_to_cancel
from heddle.rpc.stream_server import StreamLimits, StreamServer
from heddle.rpc.waiting import poll_until
from heddle.telemetry.metrics import Metrics
from heddle.v1 import engine_pb2, engine_pb2_grpc, item_pb2, tensor_pb2
from tests.metrics import Scrape, parse

Engine = Submit[engine_pb2.Submission, engine_pb2.Outcome]
ServerEngine = ServerSubmit[engine_pb2.Submission, engine_pb2.Outcome]
FINGERPRINT = "fingerprint"


def echo(item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
    """Answers at once with the item's own token ids."""
    reply(engine_pb2.Outcome(results=[engine_pb2.Result(tensor=tensor_pb2.Tensor(data=item.sequences.token_ids))]))
    return nothing_to_cancel


class Held:
    """A `Submit` that keeps its items until the test answers them."""

    def __init__(self) -> None:
        self.items: dict[int, tuple[engine_pb2.Submission, float, Reply[engine_pb2.Outcome]]] = {}
        self.cancelled: list[int] = []

    def submit(self, item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        self.items[item.id] = (item, deadline, reply)
        return lambda: self.cancelled.append(item.id)

    def answer_all(self) -> None:
        for item, deadline, reply in self.items.values():
            echo(item, deadline, reply)
        self.items.clear()


class EnginePod(engine_pb2_grpc.EngineServiceServicer):
    """A pod that can be stopped gracefully, or cut off like a killed process."""

    def __init__(
        self, submit: ServerEngine = echo, *, limits: StreamLimits | None = None, options: Options | None = None
    ) -> None:
        self.options = options or []
        self.stream = StreamServer(
            submit,
            frame_type=engine_pb2.EngineServiceInferResponse,
            outcome_type=engine_pb2.Outcome,
            load=item_pb2.Load,
            check_hello=self._check_hello,
            limits=limits,
        )
        self.received = 0

    def _check_hello(self, hello: engine_pb2.EngineServiceInferRequest) -> None:
        if hello.tokenizer_fingerprint != FINGERPRINT:
            raise HeddleError(ErrorKind.MISMATCH, "the tokenizer is another model's")

    async def Infer(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await self.stream.serve(context)

    async def start(self, address: str = "127.0.0.1:0") -> str:
        self.interceptor = Interceptor(frozenset())
        self.interceptor.ready = True
        options = [(name, value) for name, value in SERVER_OPTIONS if name not in dict(self.options)] + self.options
        self.server = grpc.aio.server(options=options, interceptors=[self.interceptor])
        engine_pb2_grpc.add_EngineServiceServicer_to_server(self, self.server)
        port = self.server.add_insecure_port(address)
        await self.server.start()
        self.target = address if address.startswith("unix:") else f"127.0.0.1:{port}"
        return self.target

    async def stop(self) -> None:
        await self.server.stop(None)


@asynccontextmanager
async def serving(
    pod: EnginePod,
    *listen: str,
    drain_s_max: float = 5,
    tls: ServerTls | None = None,
    keys: ApiKeys = NO_KEYS,
) -> AsyncIterator[Server]:
    """Runs a whole server around the pod, and stops it on exit."""
    stop = asyncio.Event()
    server = Server(listen or ("127.0.0.1:0",), drain_s_max=drain_s_max, tls=tls, keys=keys, stop=stop)
    server.add("heddle.v1.EngineService", engine_pb2_grpc.add_EngineServiceServicer_to_server, pod)
    task = asyncio.create_task(
        server.serve(announce_draining=pod.stream.announce_draining, until_idle=pod.stream.until_idle)
    )
    try:
        await eventually(lambda: server._serving or task.done())
        yield server
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


def protocol(
    fingerprint: str = FINGERPRINT, *, item_bytes_max: int = ENTRY_BYTES_MAX
) -> StreamProtocol[engine_pb2.Submission, engine_pb2.Outcome]:
    async def handshake(channel: grpc.aio.Channel, metadata: Metadata) -> engine_pb2.EngineServiceInferRequest:
        return engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint=fingerprint, takes_pieces=True)

    return StreamProtocol(
        service="heddle.v1.EngineService",
        frame_type=engine_pb2.EngineServiceInferRequest,
        outcome_type=engine_pb2.Outcome,
        open_stream=lambda channel, metadata: engine_pb2_grpc.EngineServiceStub(channel).Infer(metadata=metadata),
        handshake=handshake,
        cost_of=lambda item: max(1, len(item.sequences.token_ids) // 4),
        item_bytes_max=item_bytes_max,
    )


async def pool_of(
    *targets: str, limits: PoolLimits | None = None, on_change: Callable[[bool], None] = lambda ready: None
) -> Pool[engine_pb2.Submission, engine_pb2.Outcome]:
    pool = Pool(targets, protocol(), limits=limits, on_change=on_change)
    await pool.start()
    return pool


def read_pool(pool: Pool[Any, Any]) -> Scrape:
    """What Prometheus reads of the pool."""
    return parse(Metrics(lambda: collect_pools({"m": pool})).expose()[0].decode())


def submission(data: bytes = b"\0\0\0\0") -> engine_pb2.Submission:
    return engine_pb2.Submission(sequences=engine_pb2.Sequences(token_ids=data))


def ask(
    pool: Pool[engine_pb2.Submission, engine_pb2.Outcome], data: bytes, deadline: float = float("inf")
) -> tuple["asyncio.Future[bytes]", Cancel]:
    """Returns a future of the echoed bytes, and the function that cancels."""
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def reply(outcome: engine_pb2.Outcome | HeddleError) -> None:
        if isinstance(outcome, HeddleError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome.results[0].tensor.data)

    return future, pool.submit(submission(data), deadline, reply)


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    await asyncio.wait_for(poll_until(condition), within_s)
