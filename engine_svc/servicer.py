"""The wire edge of the engine: messages become tickets, outcomes become messages. No model, no batching.

Whatever a caller sends is checked here, so that nothing behind it meets an id outside the vocabulary or a sequence that
the model has no positions for.
"""

import asyncio
import time
from collections.abc import Sequence as Sequences
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from engine_svc.batch import Array, Output, Sequence
from engine_svc.lane import Lane
from engine_svc.scheduler import Scheduler
from engine_svc.ticket import Outcome, Ticket
from heddle import tensors
from heddle.rpc.deadlines import NEVER
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.flow_names import FlowNames
from heddle.rpc.stream import Cancel, Reply, nothing_to_cancel
from heddle.rpc.stream_server import StreamServer
from heddle.rpc.unary import answered, context_of, deadline_of_call
from heddle.v1 import engine_pb2, engine_pb2_grpc, item_pb2, model_pb2, tensor_pb2

TOKEN_ID = np.dtype("<u4")

DATA_TYPES = frozenset(tensor_pb2.DataType.values())
FLOATS = frozenset(
    {
        tensor_pb2.DATA_TYPE_UNSPECIFIED,
        tensor_pb2.DATA_TYPE_FLOAT32,
        tensor_pb2.DATA_TYPE_FLOAT16,
        tensor_pb2.DATA_TYPE_BFLOAT16,
    }
)
# Vectors come in all of them, logits as floats, and SparseTensor has one.
DATA_TYPES_OF = {
    Output.VECTOR: DATA_TYPES,
    Output.TOKEN_VECTORS: DATA_TYPES,
    Output.SPARSE_VECTOR: frozenset({tensor_pb2.DATA_TYPE_UNSPECIFIED, tensor_pb2.DATA_TYPE_FLOAT32}),
    Output.LOGITS: FLOATS,
    Output.TOKEN_LOGITS: FLOATS,
    Output.COLBERT_VECTORS: DATA_TYPES,
}
# The outputs for which a field has a meaning.
OUTPUTS_OF_FIELD = {
    "dimensions": frozenset({Output.VECTOR}),
    "skip_normalization": frozenset({Output.VECTOR, Output.COLBERT_VECTORS}),
}


class EngineServicer(engine_pb2_grpc.EngineServiceServicer):
    def __init__(self, scheduler: Scheduler, lanes: Sequences[Lane]) -> None:
        self._model = model_pb2.Model()
        self._outputs: dict[int, Output] = {}  # by their number on the wire
        self._scheduler = scheduler
        self._lanes = lanes
        self._arrived: list[Ticket] = []
        self._flow_names = FlowNames()
        self.stream = StreamServer(
            self.submit,
            frame_type=engine_pb2.EngineServiceInferResponse,
            outcome_type=engine_pb2.Outcome,
            load=self.load,
            greet=lambda hello: self._check_fingerprint(hello.tokenizer_fingerprint),
        )

    def serve_model(self, model: model_pb2.Model, outputs: frozenset[Output]) -> None:
        """Called once, when the model is loaded and before the server lets calls in."""
        self._model = model
        self._outputs = {output.value: output for output in outputs}
        self._outputs[engine_pb2.OUTPUT_UNSPECIFIED] = min(outputs, key=lambda output: output.value)

    async def Infer(  # type: ignore[override]
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await self.stream.serve(context)

    async def Encode(
        self, request: engine_pb2.EncodeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> engine_pb2.EncodeResponse:
        if request.tokenizer_fingerprint:
            self._check_fingerprint(request.tokenizer_fingerprint)
        item_context, deadline = context_of(context), deadline_of_call(context)
        item_context.flow = self._flow_names.complete(item_context.flow)
        items = [
            engine_pb2.Submission(id=index, context=item_context, sequence=sequence)
            for index, sequence in enumerate(request.sequences)
        ]
        outcomes = await asyncio.gather(*(self._encoded(item, deadline) for item in items))
        return engine_pb2.EncodeResponse(outcomes=outcomes)

    async def GetModel(
        self, request: engine_pb2.EngineServiceGetModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> engine_pb2.EngineServiceGetModelResponse:
        return engine_pb2.EngineServiceGetModelResponse(model=self._model)

    def submit(self, item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        """A hop: one sequence into the scheduler."""
        message, context = item.sequence, item.context
        data_type = message.data_type or tensor_pb2.DATA_TYPE_FLOAT32
        try:
            sequence = self._sequence(message)
            outputs = sequence.outputs
            check_wishes(message, outputs)
        except HeddleError as refusal:
            reply(refusal)
            return nothing_to_cancel

        def deliver(outcome: Outcome) -> None:
            reply(to_proto(outcome, outputs, data_type, self._model.vocabulary_size))

        flow = context.flow or self._flow_names.complete("")
        ticket = Ticket(sequence, flow, deliver, context.priority, None if deadline == NEVER else deadline)
        # All that arrives in one turn of the event loop is submitted at once: a lane that is free would otherwise
        # leave with the first sequence of a frame.
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._submit_arrived)
        self._arrived.append(ticket)
        return lambda: self._cancel(ticket)

    def load(self) -> item_pb2.Load:
        waiting = self._scheduler.load()
        now = time.monotonic()
        since = [began for lane in self._lanes if (began := lane.running_since) is not None]
        return item_pb2.Load(
            waiting_items=waiting.waiting_items + len(self._arrived),
            waiting_cost=waiting.waiting_tokens + sum(ticket.tokens for ticket in self._arrived),
            running_cost=sum(lane.running_tokens for lane in self._lanes),
            running_ms=max(0, int(1000 * (now - min(since)))) if since else 0,
        )

    def _submit_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        for ticket in self._scheduler.submit(arrived):
            refusal = HeddleError(ErrorKind.OVERLOADED, "the engine's queue is full", retry_after_ms=1000)
            ticket.deliver(Outcome(refusal, 0.0, 0.0))

    def _cancel(self, ticket: Ticket) -> None:
        if ticket in self._arrived:
            self._arrived.remove(ticket)
        else:
            self._scheduler.cancel(ticket)

    async def _encoded(self, item: engine_pb2.Submission, deadline: float) -> engine_pb2.Outcome:
        try:
            outcome = await answered(self.submit, item, deadline)
        except HeddleError as error:
            outcome = engine_pb2.Outcome(error=error.to_proto())
        outcome.id = item.id
        return outcome

    def _check_fingerprint(self, fingerprint: str) -> None:
        own = self._model.tokenizer_fingerprint
        if fingerprint != own:
            raise HeddleError(
                ErrorKind.MISMATCH,
                f"the tokenizer's fingerprint is {fingerprint[:12] or 'missing'}, the engine's model "
                f"{self._model.name} has {own[:12]}: they do not belong together",
            )

    def _sequence(self, message: engine_pb2.Sequence) -> Sequence:
        """Raises HeddleError for what the model cannot run."""
        output = self._output(message.output)
        model, packed, type_ids = self._model, message.token_ids, message.type_ids
        tokens, odd_bytes = divmod(len(packed), TOKEN_ID.itemsize)
        if odd_bytes:
            raise invalid("token_ids must be uint32: its size must be a multiple of 4 bytes", "token_ids")
        if not tokens:
            raise HeddleError(ErrorKind.EMPTY_INPUT, "a sequence needs at least one token", field="token_ids")
        if tokens > model.sequence_tokens_max:
            message_text = f"a sequence of {tokens} tokens is longer than the model's {model.sequence_tokens_max}"
            raise HeddleError(ErrorKind.TOO_LARGE, message_text, field="token_ids")
        if (largest := largest_id(packed)) >= model.vocabulary_size:
            message_text = f"token id {largest} is outside the vocabulary of {model.vocabulary_size}"
            raise invalid(message_text, "token_ids")
        if type_ids and len(type_ids) != tokens:
            raise invalid("type_ids must be empty or one byte per token", "type_ids")
        if type_ids and max(type_ids) > 1:
            raise invalid("a type id must be 0 or 1", "type_ids")
        if message.dimensions > model.dimension:
            raise invalid(f"dimensions must be at most {model.dimension}", "dimensions")
        if message.task and message.task not in model.tasks:
            raise invalid(f"there is no task {message.task!r} (there are: {', '.join(model.tasks) or 'none'})", "task")
        return Sequence(
            token_ids=packed,
            type_ids=type_ids if model.uses_type_ids else b"",
            prompt_tokens=min(message.prompt_tokens, tokens),
            output=output,
            more_outputs=self._more_outputs(message.more_outputs, output) if message.more_outputs else (),
            skip_normalization=message.skip_normalization,
            dimensions=message.dimensions,
            task=message.task,
        )

    def _more_outputs(self, wanted: Sequences[int], first: Output) -> tuple[Output, ...]:
        outputs = tuple(self._output(number) for number in wanted)
        if len({first, *outputs}) <= len(outputs):
            raise invalid("more_outputs names an output twice, or names `output` again", "more_outputs")
        return outputs

    def _output(self, wanted: int) -> Output:
        output = self._outputs.get(wanted)
        if output is not None:
            return output
        kind = model_pb2.ModelKind.Name(self._model.kind).removeprefix("MODEL_KIND_").replace("_", " ").lower()
        raise HeddleError(ErrorKind.WRONG_TASK, f"{self._model.name} is a model of another kind: {kind}")


def largest_id(packed: bytes) -> int:
    """Of one token at least."""
    token_ids = np.frombuffer(packed, TOKEN_ID)
    return token_ids.item(token_ids.argmax())  # half the time of max()


def check_wishes(message: engine_pb2.Sequence, outputs: tuple[Output, ...]) -> None:
    """Raises INVALID_INPUT for fields that would be ignored, so that no caller believes that they had an effect."""
    for field, takers in OUTPUTS_OF_FIELD.items():
        if getattr(message, field) and takers.isdisjoint(outputs):
            raise invalid(f"{field} has no effect on the output {named(outputs)}", field)
    data_type = message.data_type
    for output in outputs:
        if data_type in DATA_TYPES_OF[output]:
            return
    if data_type not in DATA_TYPES:
        raise invalid(f"there is no data type {data_type}", "data_type")
    name = tensor_pb2.DataType.Name(data_type).removeprefix("DATA_TYPE_").lower()
    raise invalid(f"the output {named(outputs)} cannot have the data type {name}", "data_type")


def named(outputs: tuple[Output, ...]) -> str:
    """Names for an error message, such as `token vectors and logits`."""
    return " and ".join(output.name.lower().replace("_", " ") for output in outputs)


def invalid(message: str, field: str) -> HeddleError:
    return HeddleError(ErrorKind.INVALID_INPUT, message, field=field)


def to_proto(
    outcome: Outcome, outputs: tuple[Output, ...], data_type: tensor_pb2.DataType, vocabulary_size: int
) -> engine_pb2.Outcome | HeddleError:
    result = outcome.result
    if isinstance(result, Exception):
        return HeddleError.from_exception(result)
    message = engine_pb2.Outcome(queue_us=int(outcome.queue_s * 1e6), compute_us=int(outcome.compute_s * 1e6))
    fill(message, result, outputs[0], data_type, vocabulary_size)
    if outcome.more:
        for output, array in zip(outputs[1:], outcome.more, strict=True):
            fill(message.more.add(), array, output, data_type, vocabulary_size)
    return message


def fill(
    message: engine_pb2.Outcome | engine_pb2.Result,
    array: Array,
    output: Output,
    data_type: tensor_pb2.DataType,
    vocabulary_size: int,
) -> None:
    if output is not Output.SPARSE_VECTOR:
        tensors.fill(message.tensor, array, data_type)
        return
    indices, values = entries_of(array)
    message.sparse.indices = indices.astype(TOKEN_ID).tobytes()
    message.sparse.values = values.astype("<f4").tobytes()
    message.sparse.dimension = vocabulary_size


def entries_of(sparse: Array) -> Sequences[npt.NDArray[Any]]:
    """Indices and values of a sparse vector, in either of the two forms that `Backend.run` may return."""
    if sparse.ndim == 2:
        return sparse[0], sparse[1]
    (indices,) = sparse.nonzero()
    return indices, sparse[indices]
