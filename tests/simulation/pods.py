"""Simulated processes that run the real services: engine pods, tokenizer pods, and callers with the real client.

Only the model and the tokenizer are replaced, because they are slow to load: by `SimulatedBackend`, whose passes take
virtual time, and by `Numbers`, for which the text `17:40` has 40 tokens, computed from 17.
"""

import abc
import asyncio
import functools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.batching import SchedulerLimits
from engine_svc.pod import wait_until_closed
from engine_svc.sequences import Output, PackedBatch, Sequences
from engine_svc.servicer import EngineServicer
from engine_svc.worker import Worker
from heddle import tensors
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from heddle.client import CallOptions, Client
from heddle.rpc.lifecycle import Server
from heddle.rpc.pool import Pool
from heddle.rpc.stream_server import StreamLimits, StreamServer
from heddle.v1 import inference_pb2, model_pb2
from heddle.v1.engine_pb2_grpc import add_EngineServiceServicer_to_server
from heddle.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from tests.simulation.checks import Checks, Hop, WatchedScheduler
from tests.simulation.virtual_time import Process, VirtualLoop
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.engines import Engines
from tokenizer_svc.servicer import InferenceServicer
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.text.inputs import Input, Options
from tokenizer_svc.text.sequences import TokenSequences

PORT = 9000
ENGINES, TOKENIZERS = f"dns:///engine:{PORT}", f"dns:///tokenizer:{PORT}"
DRAIN_S_MAX = 20.0
TIGHT = 2000, 100  # limits of a small queue: tokens and sequences
MODEL = model_pb2.Model(
    name="model",
    kind=model_pb2.MODEL_KIND_EMBEDDER,
    tokenizer_fingerprint="numbers",
    vocabulary_size=30_000,
    sequence_tokens_max=4096,
    dimension=4,
)


@functools.cache
def checkpoint() -> Checkpoint:
    packaged = Checkpoint.read(locate(PACKAGED_NAME, None, with_weights=False))
    return replace(packaged, dimension=MODEL.dimension)


class Numbers:
    """Stands in for the tokenizer, as far as embedding needs one."""

    prompts = ()
    truncation_side = None

    def options(self, truncation: Any, prompt_name: str) -> Options:
        return Options(truncation)

    def encode(self, work: Sequence[tuple[Sequence[Input], Options]]) -> list[TokenSequences]:
        return [encode_numbers(texts) for texts, _ in work]


def encode_numbers(texts: Sequence[Any]) -> TokenSequences:
    token_ids, lengths = tokens_of(texts)
    none = array("I", bytes(4 * len(texts)))
    return TokenSequences(token_ids.tobytes(), array("I", lengths.tolist()), none, bytes(len(texts)))


def tokens_of(texts: Sequence[str]) -> tuple[Any, Any]:
    """Returns the token ids of all texts, joined, and the length of each."""
    numbers = np.array([text.split(":") for text in texts], np.int64)
    lengths = numbers[:, 1]
    places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return ((np.repeat(numbers[:, 0], lengths) * 31 + places) % MODEL.vocabulary_size).astype("<u4"), lengths


def vectors_of(texts: Sequence[str]) -> Any:
    """Returns the right answer."""
    batch = PackedBatch.of([Sequences.of(*tokens_of(texts))])
    return SimulatedBackend(dimension=MODEL.dimension, fixed_us=0, per_token_ns=0).run(batch)[Output.VECTOR].values


@dataclass(frozen=True)
class EngineSpeed:
    limits: SchedulerLimits
    passes: int = 1
    runs_in_turn: bool = False
    has_express: bool = False
    fixed_us: int = 2000
    per_token_ns: int = 5000
    unanswered_items_max: int = StreamLimits().unanswered_items_max  # per stream

    @classmethod
    def draw(cls, choose: Callable[[Sequence[Any]], Any]) -> "EngineSpeed":
        queue_tokens_max, queue_items_max = choose((TIGHT, *((10**6, 10**5),) * 9))
        limits = SchedulerLimits(choose((64, 256, 2048)), choose((4, 32, 256)), queue_tokens_max, queue_items_max)
        passes = choose((1, 1, 2, 4))
        runs_in_turn, has_express = choose(((False, False), (False, True), (True, False)))
        fixed_us, per_token_ns = choose((200, 2000, 20_000, 100_000)), choose((500, 5000, 20_000))
        unanswered_items_max = choose((3, *(cls.unanswered_items_max,) * 3))
        return cls(limits, passes, runs_in_turn, has_express, fixed_us, per_token_ns, unanswered_items_max)

    @property
    def is_tight(self) -> bool:
        """Whether its queue fills up."""
        return self.limits.queue_items_max == TIGHT[1]


class Pod(abc.ABC):
    """A process that serves until `stop` is set."""

    kind = ""

    def __init__(self, loop: VirtualLoop, name: str, checks: Checks) -> None:
        self.process = Process(loop, name)
        self.checks = checks
        self.stop = asyncio.Event()
        self.task = self.process.start(self._run())

    @property
    def serves(self) -> bool:
        return not (self.process.stopped or self.stop.is_set())

    async def _run(self) -> None:
        server = Server((f"{self.process.name}:{PORT}",), drain_s_max=DRAIN_S_MAX, stop=self.stop)
        await self.serve(server)
        self.checks.violations += self.checks.unanswered(self.process)  # a draining pod finishes what it accepted
        self.process.exit()

    @abc.abstractmethod
    async def serve(self, server: Server) -> None: ...

    @abc.abstractmethod
    def check_at_rest(self) -> None: ...


class EnginePod(Pod):
    kind = "engine"

    def __init__(self, loop: VirtualLoop, name: str, checks: Checks, speed: EngineSpeed) -> None:
        self.speed = speed
        super().__init__(loop, name, checks)

    async def serve(self, server: Server) -> None:
        speed, name, checks = self.speed, self.process.name, self.checks
        self.scheduler = scheduler = WatchedScheduler(
            *(speed.limits, checks, name), passes=speed.passes, cores=speed.passes, runs_in_turn=speed.runs_in_turn
        )
        backend = SimulatedBackend(dimension=MODEL.dimension, fixed_us=speed.fixed_us, per_token_ns=speed.per_token_ns)
        loop = asyncio.get_running_loop()
        worker = Worker(lambda: backend, scheduler, loop, threads=speed.passes, has_express=speed.has_express)
        self.servicer = servicer = EngineServicer(scheduler, [worker])
        servicer.stream.limits = StreamLimits(speed.unanswered_items_max)
        servicer.stream.submit = Hop(name, servicer.submit, checks, answers_cancelled=True).submit
        server.add("heddle.v1.EngineService", add_EngineServiceServicer_to_server, servicer)

        async def warm_up() -> None:
            worker.start()
            await asyncio.wrap_future(worker.loaded)
            servicer.serve_model(MODEL, backend.outputs)

        async def close() -> None:
            scheduler.close()
            await wait_until_closed(worker)

        stream = servicer.stream
        draining = {"announce_draining": stream.announce_draining, "until_idle": stream.until_idle}
        await server.serve(warm_up=warm_up, close=close, **draining)

    def check_at_rest(self) -> None:
        self.scheduler.check_at_rest()
        load = self.servicer.load()
        self.checks.all_zero(f"{self.process.name}'s load", (load.waiting_items, load.waiting_cost, load.running_cost))
        check_stream_at_rest(self.process.name, self.servicer.stream, self.checks)


class TokenizerPod(Pod):
    kind = "tokenizer"

    async def serve(self, server: Server) -> None:
        name, checks = self.process.name, self.checks
        numbers: Any = Numbers()
        self.encoder = encoder = Encoder(numbers)

        def report_ready(ready: bool) -> None:
            server.report_ready(ready)
            servicer.stream.announce_load()

        self.engines = engines = Engines((ENGINES,), MODEL, on_change=report_ready)
        engines.submit = Hop(f"{name}'s pool", engines.submit, checks).submit  # type: ignore[assignment, method-assign]
        settings = TokenizerSettings(engines=(ENGINES,))
        self.servicer = servicer = InferenceServicer(checkpoint(), numbers, encoder, engines, settings)
        servicer.stream.submit = Hop(name, servicer.submit, checks).submit
        server.add("heddle.v1.InferenceService", add_InferenceServiceServicer_to_server, servicer)

        async def warm_up() -> None:
            await engines.start()
            await engines.wait_ready()

        async def close() -> None:
            await encoder.close()
            await engines.close()

        stream = servicer.stream
        draining = {"announce_draining": stream.announce_draining, "until_idle": stream.until_idle}
        await server.serve(warm_up=warm_up, close=close, **draining)

    def check_at_rest(self) -> None:
        name, checks = self.process.name, self.checks
        checks.all_zero(f"{name}'s unanswered requests", (len(self.servicer._unanswered),))
        checks.all_zero(f"{name}'s bytes of answers", (self.servicer._memory.total,))
        checks.all_zero(f"{name}'s bytes to encode", (self.encoder.waiting_bytes, self.encoder.running_bytes))
        check_stream_at_rest(name, self.servicer.stream, checks)
        check_pool_at_rest(name, self.engines, checks)


class Caller:
    """A process that sends requests with the real client."""

    def __init__(self, loop: VirtualLoop, name: str, checks: Checks) -> None:
        self.process = Process(loop, name)
        self.checks = checks
        self.client = self.process.context.run(Client, TOKENIZERS)
        pool = self.client._pool
        pool.submit = Hop(name, pool.submit, checks, is_punctual=True).submit  # type: ignore[assignment, method-assign]

    def embed(self, texts: Sequence[str], options: CallOptions) -> "asyncio.Task[None]":
        return self.process.start(self._embed(texts, options))

    async def _embed(self, texts: Sequence[str], options: CallOptions) -> None:
        request = inference_pb2.EmbedRequest(inputs=[inference_pb2.Input(text=text) for text in texts])
        vectors = tensors.from_proto((await self.client.embed(request, options)).embeddings)
        if not np.array_equal(vectors, vectors_of(texts)):
            self.checks.fail(f"{self.process.name} got wrong vectors for {len(texts)} inputs")

    def check_at_rest(self) -> None:
        check_pool_at_rest(self.process.name, self.client._pool, self.checks)


def check_pool_at_rest(name: str, pool: Pool[Any, Any], checks: Checks) -> None:
    checks.all_zero(f"{name}'s items without an answer", (pool.unanswered,))
    for pod in pool._pods.values():
        outgoing = len(pod._outgoing), pod._outgoing.cost, len(pod._cancel_ids)
        checks.all_zero(f"what {name} has at {pod.target}", (len(pod.unanswered), pod.unanswered_cost, *outgoing))


def check_stream_at_rest(name: str, stream: StreamServer[Any, Any], checks: Checks) -> None:
    checks.all_zero(f"{name}'s bytes that have not left", (stream.unsent.total,))
    for session in stream._sessions:
        state = len(session._cancels), len(session.outgoing), session.outgoing.cost
        checks.all_zero(f"what {name} has not sent", state)
