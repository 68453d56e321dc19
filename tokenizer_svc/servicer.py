"""The gRPC servicer of the tokenizer pod.

Every request enters at `submit`, from a stream or a unary call, and is planned by its task (tasks/). An `EngineRequest`
carries the plan out: the encoder tokenizes the inputs, the engines compute the sequences, and the answer is assembled.
`answer_locally` carries out plans that need no engine. Invalid requests are refused while they are planned.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf.unknown_fields import UnknownFieldSet

from heddle.checkpoint import Checkpoint
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import FlowNames
from heddle.rpc.stream import Cancel, ServerReply, ServerSubmit, nothing_to_cancel
from heddle.rpc.stream_server import StreamLimits, StreamServer
from heddle.rpc.traced_submit import trace_submit
from heddle.rpc.unary import call_deadline, read_context, submit_and_wait
from heddle.telemetry.traceparent import is_recorded
from heddle.telemetry.tracing import Tracing
from heddle.v1 import inference_pb2, inference_pb2_grpc, item_pb2, model_pb2
from tokenizer_svc.counts import CountedRequest
from tokenizer_svc.encoder import WORKERS, Encoder
from tokenizer_svc.engines import Engines
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.spans import RequestSpans
from tokenizer_svc.tasks.engine_request import EngineRequest, MemoryBudget
from tokenizer_svc.tasks.grouping import GroupLimits
from tokenizer_svc.tasks.local_request import answer_locally
from tokenizer_svc.tasks.plan import LocalPlan, Plan
from tokenizer_svc.tasks.served_model import ServedModel
from tokenizer_svc.tasks.table import plan_request
from tokenizer_svc.text.rerank_prompts import choose_prompt
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.unary_engines import UnaryEngines

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
        engines: Engines | UnaryEngines,
        settings: TokenizerSettings,
        *,
        tracing: Tracing | None = None,
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
        # `submit`, with a span for each request whose trace is recorded. All requests go through it.
        self.traced_submit: ServerSubmit[inference_pb2.InferenceItem, inference_pb2.InferenceOutcome] = self.submit
        self._spans = RequestSpans(checkpoint.name, tracing) if tracing is not None else None
        if tracing is not None and self._spans is not None:
            self.traced_submit = trace_submit(self.submit, tracing, self._spans)
        self.stream = StreamServer(
            self.traced_submit,
            frame_type=inference_pb2.InferenceServiceInferResponse,
            outcome_type=inference_pb2.InferenceOutcome,
            load=self.load,
            limits=StreamLimits(all_unsent_bytes_max=settings.answers_bytes_max),
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
        self, item: inference_pb2.InferenceItem, deadline: float, reply: ServerReply[inference_pb2.InferenceOutcome]
    ) -> Cancel:
        """A `ServerSubmit` (see heddle.rpc.stream). An item is one request."""
        item.context.flow = self.flow_names.complete(item.context.flow)
        counted = CountedRequest(self._encoder.counts, item.WhichOneof("request") or "unknown", reply)
        try:
            plan = self._plan(item)
            if isinstance(plan, LocalPlan):
                counted.start(len(plan.sizes), self._start_locally(plan, deadline, counted.reply))
            else:
                counted.start(len(plan.inputs), self._start_on_engines(plan, item.context, deadline, counted.reply))
        except HeddleError as refusal:
            counted.reply(refusal)
            return nothing_to_cancel
        return counted.cancel

    @property
    def running_requests(self) -> int:
        return len(self._unanswered)

    @property
    def answers_bytes(self) -> int:
        """Bytes of the answers in progress."""
        return self._memory.total

    def load(self) -> item_pb2.Load:
        return item_pb2.Load(
            unready_reason="" if self._engines.ready else self._engines.refusal().message,
            waiting_items=len(self._unanswered),
            waiting_cost=self._encoder.waiting_bytes,
            running_cost=self._encoder.running_bytes,
        )

    async def answer(self, item: inference_pb2.InferenceItem, context: Context) -> inference_pb2.InferenceOutcome:
        """Answers a unary call. Raises HeddleError."""
        item.context.CopyFrom(read_context(context))
        return await submit_and_wait(self.traced_submit, item, call_deadline(context))

    def _plan(self, item: inference_pb2.InferenceItem) -> Plan | LocalPlan:
        """Raises HeddleError for an invalid request."""
        name = item.WhichOneof("request")
        if name is None and len(UnknownFieldSet(item)):
            raise HeddleError(ErrorKind.UNIMPLEMENTED, "the item contains no request that this version knows")
        if name is None:
            raise HeddleError(ErrorKind.INVALID_INPUT, "the item contains no request")
        return plan_request(name, getattr(item, name), self._served)

    def _start_locally(
        self, plan: LocalPlan, deadline: float, reply: ServerReply[inference_pb2.InferenceOutcome]
    ) -> Cancel:
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
        reply: ServerReply[inference_pb2.InferenceOutcome],
    ) -> Cancel:
        """Raises OVERLOADED."""
        on_end: Callable[[EngineRequest], None] = self._unanswered.discard
        if self._spans is not None and is_recorded(context.traceparent):
            on_end = functools.partial(self._end_recorded, self._spans, context.traceparent)
        request = EngineRequest(
            plan,
            context,
            deadline,
            reply,
            self._engines.submit,
            limits=self._group_limits,
            memory=self._memory,
            device=self._engines.model.device,
            on_end=on_end,
        )
        request.start(self._encoder)
        self._unanswered.add(request)
        return request.cancel

    def _end_recorded(self, spans: RequestSpans, traceparent: str, request: EngineRequest) -> None:
        self._unanswered.discard(request)
        spans.record_tokenization(traceparent, *request.tokenization)
