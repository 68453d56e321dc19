"""The gRPC servicer of the tokenizer pod.

Every request enters at `submit`, from a stream or a unary call, and is planned by its task (tasks/). An `EngineRequest`
carries the plan out: the encoder tokenizes the inputs, the engines compute the sequences, and the answer is assembled.
`answer_locally` carries out plans that need no engine. Invalid requests are refused while they are planned.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar, cast

import grpc

from heddle.checkpoint import Checkpoint
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import FlowNames
from heddle.rpc.stream import Cancel, Reply, nothing_to_cancel
from heddle.rpc.stream_server import StreamServer
from heddle.rpc.unary import call_deadline, read_context, submit_and_wait
from heddle.v1 import inference_pb2, inference_pb2_grpc, item_pb2, model_pb2
from tokenizer_svc.encoder import WORKERS, Encoder
from tokenizer_svc.engines import Engines
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.tasks.engine_request import EngineRequest, MemoryBudget
from tokenizer_svc.tasks.grouping import GroupLimits
from tokenizer_svc.tasks.local_request import answer_locally
from tokenizer_svc.tasks.plan import LocalPlan, Plan
from tokenizer_svc.tasks.served_model import ServedModel
from tokenizer_svc.tasks.table import plan_request
from tokenizer_svc.text.rerank_prompts import choose_prompt
from tokenizer_svc.text.tokenizer import Tokenizer

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")
Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)


class Method(Protocol[Request_contra, Response_co]):
    """A bound method of the servicer, as the stubs declare it."""

    def __call__(self, request: Request_contra, context: Context) -> Awaitable[Response_co]: ...


def unary(name: str, request_type: type[Request], response_type: type[Response]) -> Method[Request, Response]:
    """The unary method for the request that InferenceItem calls `name`."""

    async def method(self: "InferenceServicer", request: Request, context: Context) -> Response:
        item: Any = {name: request}
        response: Response = getattr(await self.answer(inference_pb2.InferenceItem(**item), context), name)
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
        self._served = ServedModel(checkpoint, tokenizer, settings, rerank_prompt)
        self._encoder = encoder
        self._engines = engines
        self._memory = MemoryBudget(
            answer_bytes_max=settings.answer_bytes_max, answers_bytes_max=settings.answers_bytes_max
        )
        self._group_limits = GroupLimits(settings.submission_sequences_max, settings.submission_tokens_max)
        self._unanswered: set[EngineRequest | asyncio.Task[None]] = set()
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
        """The engines' description of the model, with the name and limits of this pod."""
        self._served.check_model(request.model)
        model = model_pb2.Model()
        model.CopyFrom(self._engines.model)
        model.name = self._served.checkpoint.name
        model.inputs_max = self._served.settings.request_inputs_max
        model.refuses_long_inputs = self._served.refuses_long_inputs
        model.tokenization_workers = WORKERS
        model.reranks_by_cosine = self._served.reranks_by_cosine
        return inference_pb2.InferenceServiceGetModelResponse(model=model)

    def submit(
        self, item: inference_pb2.InferenceItem, deadline: float, reply: Reply[inference_pb2.InferenceOutcome]
    ) -> Cancel:
        """A `Submit` (see heddle.rpc.stream). An item is one request."""
        item.context.flow = self.flow_names.complete(item.context.flow)
        try:
            plan = self._plan(item)
            if isinstance(plan, LocalPlan):
                return self._start_locally(plan, deadline, reply)
            return self._start_on_engines(plan, item.context, deadline, reply)
        except HeddleError as refusal:
            reply(refusal)
            return nothing_to_cancel

    def load(self) -> item_pb2.Load:
        return item_pb2.Load(
            waiting_items=len(self._unanswered),
            waiting_cost=self._encoder.waiting_bytes,
            running_cost=self._encoder.running_bytes,
        )

    async def answer(self, item: inference_pb2.InferenceItem, context: Context) -> inference_pb2.InferenceOutcome:
        """Answers a unary call. Raises HeddleError."""
        item.context.CopyFrom(read_context(context))
        return await submit_and_wait(self.submit, item, call_deadline(context))

    def _plan(self, item: inference_pb2.InferenceItem) -> Plan | LocalPlan:
        """Raises HeddleError for an invalid request."""
        name = item.WhichOneof("request")
        if name is None:
            raise HeddleError(ErrorKind.INVALID_INPUT, "the item contains no request that this version knows")
        return plan_request(name, getattr(item, name), self._served)

    def _start_locally(self, plan: LocalPlan, deadline: float, reply: Reply[inference_pb2.InferenceOutcome]) -> Cancel:
        task = asyncio.create_task(answer_locally(plan, self._encoder, deadline, reply))
        self._unanswered.add(task)
        task.add_done_callback(self._unanswered.discard)

        def cancel() -> None:
            task.cancel()

        return cancel

    def _start_on_engines(
        self,
        plan: Plan,
        context: item_pb2.ItemContext,
        deadline: float,
        reply: Reply[inference_pb2.InferenceOutcome],
    ) -> Cancel:
        """Raises OVERLOADED."""
        request = EngineRequest(
            plan,
            context,
            deadline,
            reply,
            self._engines.submit,
            limits=self._group_limits,
            memory=self._memory,
            device=self._engines.model.device,
            on_end=self._unanswered.discard,
        )
        request.start(self._encoder)
        self._unanswered.add(request)
        return request.cancel
