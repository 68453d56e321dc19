"""The wire edge of the engine: messages become submissions, and outcomes become messages.

The way of a submission: `EngineServicer.submit` checks it (`checks`) and hands it to the scheduler (`scheduler`, with
`fair_queue` and `batching`). A thread of the worker (`worker`) takes it as part of a batch, runs the batch
(`batch_runner`) on the backend, and encodes the outcome with `encode_outcome` below.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import grpc

from engine_svc.checks import CheckedSequences, Checks
from engine_svc.rows import missing
from engine_svc.scheduler import Scheduler
from engine_svc.sequences import Output
from engine_svc.submission import Outcome, Submission
from engine_svc.worker import Worker
from heddle import tensors
from heddle.rpc.deadlines import NEVER
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import FlowNames
from heddle.rpc.stream import Cancel, Reply, nothing_to_cancel
from heddle.rpc.stream_server import StreamServer
from heddle.rpc.unary import call_deadline, read_context, submit_and_wait
from heddle.v1 import engine_pb2, engine_pb2_grpc, item_pb2, model_pb2


class EngineServicer(engine_pb2_grpc.EngineServiceServicer):
    def __init__(self, scheduler: Scheduler, workers: Sequence[Worker]) -> None:
        self._scheduler = scheduler
        self._workers = workers
        self._arrived: list[Submission] = []
        self._flow_names = FlowNames()
        self.serve_model(model_pb2.Model(), frozenset())
        self.stream = StreamServer(
            self.submit,
            frame_type=engine_pb2.EngineServiceInferResponse,
            outcome_type=engine_pb2.Outcome,
            load=self.load,
            check_hello=lambda hello: self._check_fingerprint(hello.tokenizer_fingerprint),
        )

    def serve_model(self, model: model_pb2.Model, outputs: frozenset[Output]) -> None:
        """Must be called when the model is loaded, before the server accepts calls."""
        self._model = model
        self._checks = Checks(model, outputs, sequences_max=self._scheduler.limits.queue_items_max)

    async def Infer(  # type: ignore[override]
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await self.stream.serve(context)

    async def Encode(
        self, request: engine_pb2.EncodeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> engine_pb2.EncodeResponse:
        if request.tokenizer_fingerprint:
            self._check_fingerprint(request.tokenizer_fingerprint)
        item_context, deadline = read_context(context), call_deadline(context)
        item_context.flow = self._flow_names.complete(item_context.flow)
        item = engine_pb2.Submission(context=item_context, sequences=request.sequences)
        return engine_pb2.EncodeResponse(outcome=await submit_and_wait(self.submit, item, deadline))

    async def GetModel(
        self, request: engine_pb2.EngineServiceGetModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> engine_pb2.EngineServiceGetModelResponse:
        return engine_pb2.EngineServiceGetModelResponse(model=self._model)

    def submit(self, item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        """A hop (see `heddle.rpc.stream`): puts the sequences of one submission into the scheduler."""
        try:
            checked = self._checks.check(item.sequences)
        except HeddleError as error:
            reply(error)
            return nothing_to_cancel
        encode = partial(encode_outcome, checked, self._model.vocabulary_size)
        if checked.good is not None and not checked.good.size:
            reply(encode(Outcome([missing(0) for _ in checked.sequences.options.outputs])))
            return nothing_to_cancel
        context = item.context
        submission = Submission(
            checked.sequences,
            context.flow or self._flow_names.complete(""),
            reply,
            context.priority,
            None if deadline == NEVER else deadline,
            encode,
        )
        # All that arrives in one turn of the event loop is submitted at once. Otherwise an idle worker would leave with
        # the first submission of a frame.
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._submit_arrived)
        self._arrived.append(submission)
        return partial(self._cancel, submission)

    def load(self) -> item_pb2.Load:
        items, tokens = self._scheduler.load()
        for submission in self._arrived:
            items += submission.waiting
            tokens += submission.tokens
        load = item_pb2.Load(waiting_items=items, waiting_cost=tokens)
        since = now = time.monotonic()
        for worker in self._workers:
            load.running_cost += worker.running_tokens
            since = min(since, worker.running_since or now)
        load.running_ms = int(1000 * (now - since))
        return load

    def _submit_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        for submission in self._scheduler.submit(arrived):
            submission.deliver(HeddleError(ErrorKind.OVERLOADED, "the engine's queue is full", retry_after_ms=1000))

    def _cancel(self, submission: Submission) -> None:
        if submission in self._arrived:
            self._arrived.remove(submission)
        else:
            self._scheduler.cancel(submission)

    def _check_fingerprint(self, fingerprint: str) -> None:
        own = self._model.tokenizer_fingerprint
        if fingerprint != own:
            raise HeddleError(
                ErrorKind.MISMATCH,
                f"the tokenizer's fingerprint is {fingerprint[:12] or 'missing'}, but the engine's model "
                f"{self._model.name} has {own[:12]}: they do not belong together",
            )


def encode_outcome(
    checked: CheckedSequences, vocabulary_size: int, outcome: Outcome
) -> engine_pb2.Outcome | HeddleError:
    """Runs on the thread of a worker."""
    if outcome.error is not None:
        return HeddleError.from_exception(outcome.error)
    message = engine_pb2.Outcome(queue_us=int(outcome.queue_s * 1e6), compute_us=int(outcome.compute_s * 1e6))
    results, errors = outcome.results, outcome.errors
    if checked.good is not None:
        total = len(checked.good) + len(checked.errors)
        results = [rows.scatter(checked.good, total) for rows in results]
        errors = [*checked.errors, *((checked.good.item(index), error) for index, error in errors)]
        errors.sort(key=itemgetter(0))
    for rows in results:
        result = message.results.add()
        if rows.lengths is None:
            tensors.fill(result.tensor, rows.values, checked.data_type)
        elif rows.indices is None:
            tensors.fill_tokens(result.tokens, rows.values, rows.lengths, checked.data_type)
        else:
            tensors.fill_sparse(result.sparse, rows.lengths, rows.indices, rows.values, vocabulary_size)
    for index, error in errors:
        message.errors.add(index=index, error=HeddleError.from_exception(error).to_proto())
    return message
