"""The wire edge of the tokenizer pod: each request becomes a plan, and an object that carries it out.

Read a request's way from `submit`: its task plans it (tasks/), the encoder tokenizes its inputs, the engines
compute its sequences, and its `EngineRequest` answers. What only looks at the request is refused here, before any work.
"""

from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar, cast

import grpc

from heddle.checkpoint import Checkpoint
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.flow_names import FlowNames
from heddle.rpc.stream import Cancel, Reply, nothing_to_cancel
from heddle.rpc.stream_server import StreamServer
from heddle.rpc.unary import answered, context_of, deadline_of_call
from heddle.v1 import inference_pb2, inference_pb2_grpc, item_pb2, model_pb2
from tokenizer_svc.encoder import WORKERS, Encoder
from tokenizer_svc.engines import Engines
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.tasks.engine_request import EngineRequest
from tokenizer_svc.tasks.grouping import GroupLimits
from tokenizer_svc.tasks.local_request import LocalPlan, LocalRequest
from tokenizer_svc.tasks.memory_budget import MemoryBudget
from tokenizer_svc.tasks.table import planned
from tokenizer_svc.tasks.terms import Terms
from tokenizer_svc.text.rerank_prompts import choose_prompt
from tokenizer_svc.text.tokenizer import Tokenizer

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")
Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)


class Method(Protocol[Request_contra, Response_co]):
    """As the stubs declare it, once it is bound to its servicer."""

    def __call__(self, request: Request_contra, context: Context) -> Awaitable[Response_co]: ...


def unary(name: str, request_type: type[Request], response_type: type[Response]) -> Method[Request, Response]:
    """The method of the request that InferenceItem calls `name`: the same as on the stream, for one item."""

    async def method(self: "InferenceServicer", request: Request, context: Context) -> Response:
        item: Any = {name: request}
        response: Response = getattr(await self.answered(inference_pb2.InferenceItem(**item), context), name)
        return response

    return cast("Method[Request, Response]", method)  # the class binds it


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        encoder: Encoder,
        engines: Engines,
        settings: TokenizerSettings,
    ) -> None:
        rerank_prompt = choose_prompt(checkpoint, tokenizer, settings.rerank_template)
        self._terms = Terms(checkpoint, tokenizer, settings, rerank_prompt)
        self._encoder = encoder
        self._engines = engines
        self._memory = MemoryBudget(
            answer_bytes_max=settings.answer_bytes_max, answers_bytes_max=settings.answers_bytes_max
        )
        self._group_limits = GroupLimits(settings.submission_sequences_max, settings.submission_tokens_max)
        self._unanswered: set[EngineRequest | LocalRequest] = set()
        self.flow_names = FlowNames()
        self.stream = StreamServer(
            self.submit,
            frame_type=inference_pb2.InferenceServiceInferResponse,
            outcome_type=inference_pb2.InferenceOutcome,
            load=self.load,
        )

    async def Infer(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]
        await self.stream.serve(context)

    Embed = unary("embed", inference_pb2.EmbedRequest, inference_pb2.EmbedResponse)
    EmbedTokens = unary("embed_tokens", inference_pb2.EmbedTokensRequest, inference_pb2.EmbedTokensResponse)
    EmbedSparse = unary("embed_sparse", inference_pb2.EmbedSparseRequest, inference_pb2.EmbedSparseResponse)
    Rerank = unary("rerank", inference_pb2.RerankRequest, inference_pb2.RerankResponse)
    Predict = unary("predict", inference_pb2.PredictRequest, inference_pb2.PredictResponse)
    PredictTokens = unary("predict_tokens", inference_pb2.PredictTokensRequest, inference_pb2.PredictTokensResponse)
    Similarity = unary("similarity", inference_pb2.SimilarityRequest, inference_pb2.SimilarityResponse)
    Tokenize = unary("tokenize", inference_pb2.TokenizeRequest, inference_pb2.TokenizeResponse)
    Decode = unary("decode", inference_pb2.DecodeRequest, inference_pb2.DecodeResponse)

    async def GetModel(
        self, request: inference_pb2.InferenceServiceGetModelRequest, context: Context
    ) -> inference_pb2.InferenceServiceGetModelResponse:
        """As the engines describe it, with the name and limits that hold here."""
        self._terms.check_model(request.model)
        model = model_pb2.Model()
        model.CopyFrom(self._engines.model)
        model.name = self._terms.checkpoint.name
        model.inputs_max = self._terms.settings.request_inputs_max
        model.refuses_long_inputs = self._terms.refuses_long_inputs
        model.tokenization_workers = WORKERS
        model.reranks_by_cosine = self._terms.reranks_by_cosine
        return inference_pb2.InferenceServiceGetModelResponse(model=model)

    def submit(
        self, item: inference_pb2.InferenceItem, deadline: float, reply: Reply[inference_pb2.InferenceOutcome]
    ) -> Cancel:
        """A hop: one request."""
        item.context.flow = self.flow_names.complete(item.context.flow)
        try:
            running = self._running(item, deadline, reply)
            running.start(self._encoder)
        except HeddleError as refusal:
            reply(refusal)
            return nothing_to_cancel
        self._unanswered.add(running)
        return running.cancel

    def load(self) -> item_pb2.Load:
        return item_pb2.Load(
            waiting_items=len(self._unanswered),
            waiting_cost=self._encoder.waiting_bytes,
            running_cost=self._encoder.running_bytes,
        )

    async def answered(self, item: inference_pb2.InferenceItem, context: Context) -> inference_pb2.InferenceOutcome:
        """The outcome of one unary call. Raises HeddleError."""
        item.context.CopyFrom(context_of(context))
        return await answered(self.submit, item, deadline_of_call(context))

    def _running(
        self, item: inference_pb2.InferenceItem, deadline: float, reply: Reply[inference_pb2.InferenceOutcome]
    ) -> EngineRequest | LocalRequest:
        """Raises HeddleError for what cannot be served."""
        name = item.WhichOneof("request")
        if name is None:
            raise HeddleError(ErrorKind.INVALID_INPUT, "the item holds no request that this version knows")
        plan = planned(name, getattr(item, name), self._terms)
        if isinstance(plan, LocalPlan):
            return LocalRequest(plan, deadline, reply, on_end=self._unanswered.discard)
        return EngineRequest(
            plan,
            item,
            deadline,
            reply,
            self._engines.submit,
            limits=self._group_limits,
            memory=self._memory,
            device=self._engines.model.device,
            on_end=self._unanswered.discard,
        )
