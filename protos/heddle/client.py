"""Asyncio clients of heddle.v1.InferenceService, for the gateway and other services.

    async with Client("localhost:50051") as client:
        vectors = await client.vectors(["What is deep learning?"])

`Client` keeps one coalescing stream to each pod: concurrent calls share frames, pods share the load, and a call whose
pod dies is sent to another. `UnaryClient` makes a plain gRPC call for each, for meshes that balance calls themselves.
Both use the messages of heddle/v1/inference.proto, and raise HeddleError.
"""

import abc
import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import grpc
import numpy as np
import numpy.typing as npt

from heddle import tensors
from heddle.rpc.channels import open_channel
from heddle.rpc.credentials import PLAINTEXT, Access, Metadata, explain_refusal
from heddle.rpc.deadlines import deadline_after
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pool import Pool, PoolLimits
from heddle.rpc.stream import StreamProtocol
from heddle.rpc.unary import submit_and_wait, to_metadata
from heddle.telemetry.tracing import Tracing
from heddle.v1 import inference_pb2 as pb
from heddle.v1 import item_pb2, model_pb2
from heddle.v1.inference_pb2_grpc import InferenceServiceStub

CALL_S_MAX = 60.0


class CallOptions(NamedTuple):
    timeout_s: float | None = CALL_S_MAX  # None: as long as it takes
    priority: int = 0  # smaller is served first
    flow: str = ""  # fair-share key; "" = the address of this machine (see ItemContext.flow)
    request_id: str = ""  # appears in the logs of all services
    traceparent: str = ""  # W3C trace context
    tracestate: str = ""

    def write(self, context: item_pb2.ItemContext) -> item_pb2.ItemContext:
        """Writes the options into the context of an item, without building a message to copy."""
        context.priority = self.priority
        context.flow = self.flow
        context.request_id = self.request_id
        context.traceparent = self.traceparent
        context.tracestate = self.tracestate
        return context


DEFAULT_OPTIONS = CallOptions()


class InferenceClient(abc.ABC):
    """The calls of both clients."""

    @abc.abstractmethod
    async def infer(self, item: pb.InferenceItem, options: CallOptions = DEFAULT_OPTIONS) -> pb.InferenceOutcome:
        """Sends any of the requests below in an item. The outcome holds the response; errors are raised."""

    @abc.abstractmethod
    async def get_model(self, options: CallOptions = DEFAULT_OPTIONS) -> model_pb2.Model: ...

    @abc.abstractmethod
    async def close(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def vectors(
        self,
        texts: Sequence[str],
        options: CallOptions = DEFAULT_OPTIONS,
        *,
        prompt_name: str = "",
        dimensions: int = 0,
        input_tokens_max: int = 0,
    ) -> npt.NDArray[np.float32]:
        """Normalised embeddings float32 [texts, dimension]; see EmbedRequest for the rest."""
        if isinstance(texts, str):
            raise TypeError("texts must be a list of strings, not one string: its characters would each get a vector")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts[{index}] must be a string, not {type(text).__name__}; `embed` takes token ids")
        inputs = [pb.Input(text=text) for text in texts]
        request = pb.EmbedRequest(
            inputs=inputs, prompt_name=prompt_name, dimensions=dimensions, input_tokens_max=input_tokens_max
        )
        return tensors.from_proto((await self.embed(request, options)).embeddings)

    async def embed(self, request: pb.EmbedRequest, options: CallOptions = DEFAULT_OPTIONS) -> pb.EmbedResponse:
        return (await self.infer(pb.InferenceItem(embed=request), options)).embed

    async def embed_tokens(
        self, request: pb.EmbedTokensRequest, options: CallOptions = DEFAULT_OPTIONS
    ) -> pb.EmbedTokensResponse:
        return (await self.infer(pb.InferenceItem(embed_tokens=request), options)).embed_tokens

    async def embed_sparse(
        self, request: pb.EmbedSparseRequest, options: CallOptions = DEFAULT_OPTIONS
    ) -> pb.EmbedSparseResponse:
        return (await self.infer(pb.InferenceItem(embed_sparse=request), options)).embed_sparse

    async def rerank(self, request: pb.RerankRequest, options: CallOptions = DEFAULT_OPTIONS) -> pb.RerankResponse:
        return (await self.infer(pb.InferenceItem(rerank=request), options)).rerank

    async def predict(self, request: pb.PredictRequest, options: CallOptions = DEFAULT_OPTIONS) -> pb.PredictResponse:
        return (await self.infer(pb.InferenceItem(predict=request), options)).predict

    async def predict_tokens(
        self, request: pb.PredictTokensRequest, options: CallOptions = DEFAULT_OPTIONS
    ) -> pb.PredictTokensResponse:
        return (await self.infer(pb.InferenceItem(predict_tokens=request), options)).predict_tokens

    async def similarity(
        self, request: pb.SimilarityRequest, options: CallOptions = DEFAULT_OPTIONS
    ) -> pb.SimilarityResponse:
        return (await self.infer(pb.InferenceItem(similarity=request), options)).similarity

    async def tokenize(
        self, request: pb.TokenizeRequest, options: CallOptions = DEFAULT_OPTIONS
    ) -> pb.TokenizeResponse:
        return (await self.infer(pb.InferenceItem(tokenize=request), options)).tokenize

    async def decode(self, request: pb.DecodeRequest, options: CallOptions = DEFAULT_OPTIONS) -> pb.DecodeResponse:
        return (await self.infer(pb.InferenceItem(decode=request), options)).decode


class Client(InferenceClient):
    """Uses one coalescing stream per pod. Made and used inside one event loop."""

    def __init__(
        self,
        *targets: str,
        limits: PoolLimits | None = None,
        access: Access = PLAINTEXT,
        tracing: Tracing | None = None,
    ) -> None:
        """Targets are `host:port`, `unix:/path`, or `dns:///name:port` for all pods behind a name. `access` holds
        certificates and a key. `tracing` records a span of each call whose traceparent has the flag."""
        self.model: model_pb2.Model | None = None  # described by the pod that connected last
        protocol: StreamProtocol[pb.InferenceItem, pb.InferenceOutcome] = StreamProtocol(
            service="heddle.v1.InferenceService",
            frame_type=pb.InferenceServiceInferRequest,
            outcome_type=pb.InferenceOutcome,
            open_stream=lambda channel, metadata: InferenceServiceStub(channel).Infer(metadata=metadata),
            handshake=self._handshake,
            cost_of=None,
            relays=True,
        )
        self._limits = limits or PoolLimits()
        self._pool: Pool[pb.InferenceItem, pb.InferenceOutcome] = Pool(
            targets, protocol, limits=self._limits, access=access, tracing=tracing
        )
        self._starting: asyncio.Task[None] | None = None

    @property
    def pool(self) -> Pool[pb.InferenceItem, pb.InferenceOutcome]:
        """The pods, for metrics."""
        return self._pool

    @property
    def ready(self) -> bool:
        """Whether some pod is available."""
        return self._pool.ready

    @property
    def unanswered(self) -> int:
        """Number of calls that have no answer yet."""
        return self._pool.unanswered

    async def start(self) -> None:
        """Connects. Otherwise the first call does."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._pool.start())
        await asyncio.shield(self._starting)

    async def wait_ready(self) -> None:
        """Returns when a pod is available."""
        await self.start()
        await self._pool.wait_ready()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def close(self) -> None:
        await self._pool.close()

    async def infer(self, item: pb.InferenceItem, options: CallOptions = DEFAULT_OPTIONS) -> pb.InferenceOutcome:
        if self._starting is None or not self._starting.done():
            await self.start()
        options.write(item.context)
        return await submit_and_wait(self._pool.submit, item, deadline_after(options.timeout_s))

    async def get_model(self, options: CallOptions = DEFAULT_OPTIONS) -> model_pb2.Model:
        """Returns at once if a pod has ever connected. Otherwise waits for one as long as a call would."""
        if self.model is None:
            await self._wait_for_a_pod(options.timeout_s)
        assert self.model is not None  # a pod is ready after its handshake
        return self.model

    async def _wait_for_a_pod(self, timeout_s: float | None) -> None:
        """Raises the reason if there is none in time."""
        no_pod_s_max = self._limits.no_pod_s_max
        try:
            async with asyncio.timeout(no_pod_s_max if timeout_s is None else min(timeout_s, no_pod_s_max)):
                await self.wait_ready()
        except TimeoutError:
            raise self._pool.refusal() from None

    async def _handshake(self, channel: grpc.aio.Channel, metadata: Metadata) -> pb.InferenceServiceInferRequest:
        request = pb.InferenceServiceGetModelRequest()
        response = await InferenceServiceStub(channel).GetModel(request, metadata=metadata)
        self.model = response.model
        return pb.InferenceServiceInferRequest(takes_pieces=True)


class UnaryClient(InferenceClient):
    """Makes one gRPC call each, on one channel. Made and used inside one event loop."""

    def __init__(self, target: str, *, access: Access = PLAINTEXT) -> None:
        """`access` holds certificates and a key. Raises ConfigurationError for a file that cannot be used."""
        self._target = target
        self._access = access
        self._closing: set[asyncio.Task[None]] = set()
        self._connect()

    def _connect(self) -> None:
        self._versions = self._access.versions()
        self._metadata = self._access.metadata()
        self._channel = open_channel(self._target, self._access)
        self._stub: Any = InferenceServiceStub(self._channel)

    async def close(self) -> None:
        for closing in self._closing:
            closing.cancel()
        await self._channel.close()

    async def infer(self, item: pb.InferenceItem, options: CallOptions = DEFAULT_OPTIONS) -> pb.InferenceOutcome:
        name = item.WhichOneof("request")
        if name is None:
            raise ValueError("the item holds no request")
        response = await self._call(method_name(name), getattr(item, name), options)
        return pb.InferenceOutcome(**{name: response})

    async def get_model(self, options: CallOptions = DEFAULT_OPTIONS) -> model_pb2.Model:
        response = await self._call("GetModel", pb.InferenceServiceGetModelRequest(), options)
        model: model_pb2.Model = response.model
        return model

    async def _call(self, method: str, request: Any, options: CallOptions) -> Any:
        if self._access is not PLAINTEXT and self._access.versions() != self._versions:
            self._connect_again()
        metadata = to_metadata(options.write(item_pb2.ItemContext()))
        try:
            return await getattr(self._stub, method)(
                request, timeout=options.timeout_s, metadata=(*metadata, *self._metadata)
            )
        except grpc.aio.AioRpcError as error:
            if refusal := explain_refusal(error.details() or "", self._target, self._access.tls):
                raise HeddleError(ErrorKind.UNAUTHENTICATED, refusal) from None
            raise HeddleError.from_rpc_error(error) from None

    def _connect_again(self) -> None:
        """Uses the files that have changed. Running calls finish on the old connection."""
        channel, self._versions = self._channel, self._access.versions()
        if not self._access.is_usable(self._target):
            return
        self._connect()
        closing = asyncio.create_task(channel.close(CALL_S_MAX))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def method_name(request: str) -> str:
    """The RPC of a request's field: EmbedTokens for embed_tokens."""
    return "".join(word.capitalize() for word in request.split("_"))
