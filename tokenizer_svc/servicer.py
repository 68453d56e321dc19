"""The wire edge of the tokenizer pod: each request becomes a plan, and a gathering of its outcomes.

Read a request's way from `submit`: its task plans it (tasks/), the encoder tokenizes its inputs, the engines
compute its sequences, and its gathering answers. What only looks at the request is refused here, before any work.
"""

import itertools
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import Cancel, Reply, nothing_to_cancel
from heddle.rpc.stream_server import StreamServer
from heddle.rpc.unary import answered, context_of, deadline_of_call
from heddle.v1 import inference_pb2, inference_pb2_grpc, item_pb2, model_pb2
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.engines import Engines
from tokenizer_svc.sequence import Options
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.tasks import embedding
from tokenizer_svc.tasks.gathering import Gathering, Plan
from tokenizer_svc.tokenization import Tokenizer
from tokenizer_svc.truncation import Truncation

TRUNCATIONS = frozenset(inference_pb2.Truncation.values())

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        encoder: Encoder,
        engines: Engines,
        settings: TokenizerSettings,
    ) -> None:
        self._checkpoint = checkpoint
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._engines = engines
        self._settings = settings
        self._unanswered: set[Gathering] = set()
        self._pod_id = secrets.token_hex(4)  # flows are told apart among all tokenizer pods of an engine
        self._flow_numbers = itertools.count()
        self._plans: dict[str, Callable[[Any], Plan]] = {"embed": self._plan_embed}
        self.stream = StreamServer(
            self.submit,
            frame_type=inference_pb2.InferenceServiceInferResponse,
            outcome_type=inference_pb2.InferenceOutcome,
            load=self.load,
        )

    async def Infer(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]
        await self.stream.serve(context)

    async def Embed(self, request: inference_pb2.EmbedRequest, context: Context) -> inference_pb2.EmbedResponse:
        return (await self._answered(inference_pb2.InferenceItem(embed=request), context)).embed

    async def GetModel(
        self, request: inference_pb2.InferenceServiceGetModelRequest, context: Context
    ) -> inference_pb2.InferenceServiceGetModelResponse:
        """As the engines describe it, with the name and limits that hold here."""
        self._check_model(request.model)
        model = model_pb2.Model()
        model.CopyFrom(self._engines.model)
        model.name = self._checkpoint.name
        model.inputs_max = self._settings.request_inputs_max
        return inference_pb2.InferenceServiceGetModelResponse(model=model)

    def submit(
        self, item: inference_pb2.InferenceItem, deadline: float, reply: Reply[inference_pb2.InferenceOutcome]
    ) -> Cancel:
        """A hop: one request."""
        item.context.flow = item.context.flow or f"{self._pod_id}.{next(self._flow_numbers)}"

        def answer(outcome: inference_pb2.InferenceOutcome | HeddleError) -> None:
            self._unanswered.discard(gathering)
            reply(outcome)

        def cancel() -> None:
            self._unanswered.discard(gathering)
            gathering.cancel()

        try:
            gathering = Gathering(self._plan(item), item, deadline, answer, self._engines.submit)
            gathering.start(self._encoder)
        except HeddleError as refusal:
            reply(refusal)
            return nothing_to_cancel
        self._unanswered.add(gathering)
        return cancel

    def load(self) -> item_pb2.Load:
        return item_pb2.Load(
            waiting_items=len(self._unanswered),
            waiting_cost=self._encoder.waiting_bytes,
            running_cost=self._encoder.running_bytes,
        )

    async def _answered(self, item: inference_pb2.InferenceItem, context: Context) -> inference_pb2.InferenceOutcome:
        item.context.CopyFrom(context_of(context))
        return await answered(self.submit, item, deadline_of_call(context))

    def _plan(self, item: inference_pb2.InferenceItem) -> Plan:
        """Raises HeddleError for what cannot be served."""
        name = item.WhichOneof("request")
        if name is None:
            raise HeddleError(ErrorKind.INVALID_INPUT, "the item holds no request that this version knows")
        if name not in self._plans:
            raise HeddleError(ErrorKind.UNIMPLEMENTED, f"{name} is not served by this version")
        request = getattr(item, name)
        self._check_model(request.model)
        return self._plans[name](request)

    def _plan_embed(self, request: inference_pb2.EmbedRequest) -> Plan:
        self._check_kind(ModelKind.EMBEDDER, "embed")
        self._check_inputs(request.inputs)
        options = self._options(request.truncation, request.prompt_name)
        return embedding.plan(request, options, self._checkpoint.dimension)

    def _check_model(self, name: str) -> None:
        if name not in ("", self._checkpoint.name):
            message = f"there is no model {name!r} here, only {self._checkpoint.name!r}"
            raise HeddleError(ErrorKind.MODEL_NOT_FOUND, message, field="model")

    def _check_kind(self, kind: ModelKind, task: str) -> None:
        own = self._checkpoint.kind
        if own is not kind:
            message = f"{self._checkpoint.name} is a model of the kind {own.replace('_', ' ')}: it cannot {task}"
            raise HeddleError(ErrorKind.WRONG_TASK, message)

    def _check_inputs(self, inputs: Sequence[Any]) -> None:
        limit = self._settings.request_inputs_max
        if not inputs:
            raise HeddleError(ErrorKind.EMPTY_INPUT, "a request needs at least one input", field="inputs")
        if len(inputs) > limit:
            message = f"the request has {len(inputs)} inputs, the limit is {limit}"
            raise HeddleError(ErrorKind.TOO_LARGE, message, field="inputs")

    def _options(self, wanted: int, prompt_name: str) -> Options:
        if wanted not in TRUNCATIONS:
            raise HeddleError(ErrorKind.INVALID_INPUT, f"there is no truncation {wanted}", field="truncation")
        truncation = Truncation(wanted) if wanted else Truncation[self._settings.truncation.upper()]
        return self._tokenizer.options(truncation, prompt_name)
