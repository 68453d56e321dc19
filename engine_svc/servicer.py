"""The wire edge of the engine: messages become submissions, outcomes become messages. No model, no batching.

Whatever a caller sends is checked here and in `engine_svc.checks`, so that nothing behind it meets an id outside the
vocabulary or a sequence that the model has no positions for.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc

from engine_svc.answers import encode, nothing_computed
from engine_svc.batch import Output
from engine_svc.checks import Checks
from engine_svc.scheduler import Scheduler
from engine_svc.submission import Submission
from engine_svc.worker import Worker
from heddle.rpc.deadlines import NEVER
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import FlowNames
from heddle.rpc.stream import Cancel, Reply, nothing_to_cancel
from heddle.rpc.stream_server import StreamServer
from heddle.rpc.unary import call_deadline, read_context, submit_and_wait
from heddle.v1 import engine_pb2, engine_pb2_grpc, item_pb2, model_pb2


class EngineServicer(engine_pb2_grpc.EngineServiceServicer):
    def __init__(self, scheduler: Scheduler, workers: Sequence[Worker]) -> None:
        self._model = model_pb2.Model()
        self._checks = Checks(self._model, frozenset())
        self._scheduler = scheduler
        self._workers = workers
        self._arrived: list[Submission] = []
        self._flow_names = FlowNames()
        self.stream = StreamServer(
            self.submit,
            frame_type=engine_pb2.EngineServiceInferResponse,
            outcome_type=engine_pb2.Outcome,
            load=self.load,
            check_hello=lambda hello: self._check_fingerprint(hello.tokenizer_fingerprint),
        )

    def serve_model(self, model: model_pb2.Model, outputs: frozenset[Output]) -> None:
        """Called once, when the model is loaded and before the server lets calls in."""
        self._model = model
        self._checks = Checks(model, outputs)

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
        """A hop: the sequences of one submission into the scheduler."""
        context = item.context
        try:
            checked = self._checks.check(item.sequences)
        except HeddleError as refusal:
            reply(refusal)
            return nothing_to_cancel
        if checked.sequences is None:
            reply(nothing_computed(checked))
            return nothing_to_cancel
        submission = Submission(
            checked.sequences,
            context.flow or self._flow_names.complete(""),
            reply,
            context.priority,
            None if deadline == NEVER else deadline,
            partial(encode, checked, self._model.vocabulary_size),
        )
        # All that arrives in one turn of the event loop is submitted at once: a worker that is free would otherwise
        # leave with the first submission of a frame.
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._submit_arrived)
        self._arrived.append(submission)
        return lambda: self._cancel(submission)

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
                f"the tokenizer's fingerprint is {fingerprint[:12] or 'missing'}, the engine's model "
                f"{self._model.name} has {own[:12]}: they do not belong together",
            )
