"""The wire edge of the engine: messages become submissions, and outcomes become messages.

The way of a submission: `EngineServicer.submit` checks it (`checks`) and hands it to the scheduler (`scheduler`, with
`fair_queue` and `batching`). A thread of the worker (`worker`) takes it as part of a batch, runs the batch
(`batch_runner`) on the backend, and encodes the outcome with `encode_outcome` below.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import grpc

from engine_svc.checks import CheckedSequences, Checks
from engine_svc.load_report import TRAILER, LoadReports
from engine_svc.rows import missing
from engine_svc.scheduler import Scheduler
from engine_svc.sequences import Output
from engine_svc.spans import SubmissionSpans
from engine_svc.submission import Outcome, Submission
from engine_svc.worker import Worker
from heddle import tensors
from heddle.rpc.deadlines import NEVER
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import FlowNames
from heddle.rpc.stream import LARGE_BYTES_MIN, Cancel, LargeOutcome, ServerReply, nothing_to_cancel
from heddle.rpc.stream_server import StreamServer
from heddle.rpc.traced_submit import trace_submit
from heddle.rpc.unary import CallBytes, call_deadline, read_context, submit_and_wait
from heddle.telemetry.logs import REQUEST_ID_CHARACTERS_MAX
from heddle.telemetry.traceparent import is_recorded
from heddle.telemetry.tracing import Tracing
from heddle.v1 import engine_pb2, engine_pb2_grpc, item_pb2, model_pb2

# Bytes of all Encode requests and answers that are held at once.
CALLS_BYTES_MAX = 256 << 20


class EngineServicer(engine_pb2_grpc.EngineServiceServicer):
    def __init__(
        self,
        scheduler: Scheduler,
        workers: Sequence[Worker],
        tracing: Tracing | None = None,
        *,
        calls_bytes_max: int = CALLS_BYTES_MAX,
    ) -> None:
        self._scheduler = scheduler
        self._tracing = tracing
        self._workers = workers
        self._arrived: list[Submission] = []
        self._flow_names = FlowNames()
        self._load_reports = LoadReports(self.load, scheduler.limits.batch_tokens_max)
        self._call_bytes = CallBytes(calls_bytes_max)  # of Encode
        self._traced_submit = trace_submit(self.submit, tracing, SubmissionSpans(lambda: self.model.name))
        self.serve_model(model_pb2.Model(), frozenset())
        self.stream = StreamServer(
            self._traced_submit,
            frame_type=engine_pb2.EngineServiceInferResponse,
            outcome_type=engine_pb2.Outcome,
            load=self.load,
            check_hello=lambda hello: self._check_fingerprint(hello.tokenizer_fingerprint),
        )

    def serve_model(self, model: model_pb2.Model, outputs: frozenset[Output]) -> None:
        """Must be called when the model is loaded, before the server accepts calls."""
        self.model = model
        self._checks = Checks(model, outputs, sequences_max=self._scheduler.limits.queue_items_max)

    async def Infer(  # type: ignore[override]
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await self.stream.serve(context)

    async def Encode(
        self, request: engine_pb2.EncodeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> engine_pb2.EncodeResponse:
        size = request.ByteSize()
        self._call_bytes.take(size, context)
        if request.tokenizer_fingerprint:
            self._check_fingerprint(request.tokenizer_fingerprint)
        item_context, deadline = read_context(context), call_deadline(context)
        item_context.flow = self._flow_names.complete(item_context.flow)
        item = engine_pb2.Submission(context=item_context, sequences=request.sequences)
        try:
            outcome = await submit_and_wait(self._traced_submit, item, deadline)
        finally:
            context.set_trailing_metadata(((TRAILER, self._load_reports.count_call()),))
        self._call_bytes.take(sum(map(count_bytes, outcome.results)), context, own=size)
        return engine_pb2.EncodeResponse(outcome=outcome)

    async def GetModel(
        self, request: engine_pb2.EngineServiceGetModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> engine_pb2.EngineServiceGetModelResponse:
        return engine_pb2.EngineServiceGetModelResponse(model=self.model)

    def submit(self, item: engine_pb2.Submission, deadline: float, reply: ServerReply[engine_pb2.Outcome]) -> Cancel:
        """A hop (see `heddle.rpc.stream`): puts the sequences of one submission into the scheduler."""
        reply = partial(self._reply, reply, time.perf_counter())
        try:
            checked = self._checks.check(item.sequences)
        except HeddleError as error:
            reply(error)
            return nothing_to_cancel
        encode = partial(encode_outcome, checked, self.model.vocabulary_size)
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
        submission.log_context = context.request_id[:REQUEST_ID_CHARACTERS_MAX], context.traceparent
        if self._tracing is not None and is_recorded(context.traceparent):
            submission.traceparent = context.traceparent
        # All that arrives in one turn of the event loop is submitted at once. Otherwise an idle worker would leave with
        # the first submission of a frame.
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._submit_arrived)
        self._arrived.append(submission)
        return partial(self._cancel, submission)

    def _reply(
        self,
        reply: ServerReply[engine_pb2.Outcome],
        began: float,
        outcome: engine_pb2.Outcome | LargeOutcome[engine_pb2.Outcome] | HeddleError,
    ) -> None:
        """Counts the outcome for the metrics, and replies."""
        name = outcome.kind.name.lower() if isinstance(outcome, HeddleError) else "ok"
        counts = self._scheduler.counts
        counts.submissions[name] += 1
        counts.submission_seconds.observe(time.perf_counter() - began)
        reply(outcome)

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
            assert submission.refusal
            message, retry_after_ms = submission.refusal.message, submission.refusal.retry_after_ms
            submission.deliver(HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=retry_after_ms))

    def _cancel(self, submission: Submission) -> None:
        if submission in self._arrived:
            self._arrived.remove(submission)
        elif not self._scheduler.cancel(submission):
            return
        self._scheduler.counts.submissions["cancelled"] += 1

    def _check_fingerprint(self, fingerprint: str) -> None:
        own = self.model.tokenizer_fingerprint
        if fingerprint != own:
            raise HeddleError(
                ErrorKind.MISMATCH,
                f"the tokenizer's fingerprint is {fingerprint[:12] or 'missing'}, but the engine's model "
                f"{self.model.name} has {own[:12]}: they do not belong together",
            )


def count_bytes(result: engine_pb2.Result) -> int:
    """The approximate size of a result in bytes."""
    if result.HasField("sparse"):
        return 2 * len(result.sparse.values)
    tensor = result.tokens.tensor if result.HasField("tokens") else result.tensor
    return 4 * math.prod(tensor.shape)


def encode_outcome(
    checked: CheckedSequences, vocabulary_size: int, outcome: Outcome
) -> engine_pb2.Outcome | LargeOutcome[engine_pb2.Outcome] | HeddleError:
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
    size = 0
    for rows in results:
        size += rows.values.nbytes
        result = message.results.add()
        if rows.lengths is None:
            tensors.fill(result.tensor, rows.values, checked.data_type)
        elif rows.indices is None:
            tensors.fill_tokens(result.tokens, rows.values, rows.lengths, checked.data_type)
        else:
            tensors.fill_sparse(result.sparse, rows.lengths, rows.indices, rows.values, vocabulary_size)
    for index, error in errors:
        message.errors.add(index=index, error=HeddleError.from_exception(error).to_proto())
    return LargeOutcome(message, size) if size >= LARGE_BYTES_MIN else message
