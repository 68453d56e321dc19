"""The spans of submissions, and of the batches that compute them. The servicer passes `SubmissionSpans` to
`trace_submit`, and the worker calls `BatchSpans`."""

import logging
import time
from collections.abc import Callable, Sequence

from engine_svc.batching import Batch
from engine_svc.submission import Part
from heddle.telemetry.logs import REQUEST_ID_CHARACTERS_MAX
from heddle.telemetry.tracing import Attributes, Span, Tracing, to_ns
from heddle.v1 import engine_pb2

log = logging.getLogger(__name__)


class SubmissionSpans:
    """`ItemSpans` (see heddle.rpc.traced_submit)."""

    def __init__(self, model: Callable[[], str]) -> None:
        """`model` returns the name of the model, once it is loaded."""
        self._model = model

    def begin(self, item: engine_pb2.Submission) -> tuple[str, Attributes]:
        model, sequences = self._model(), item.sequences
        return f"infer {model}", {
            "gen_ai.request.model": model,
            "heddle.request.id": item.context.request_id[:REQUEST_ID_CHARACTERS_MAX],
            "heddle.sequences": len(sequences.lengths) // 4,
            "heddle.tokens": len(sequences.token_ids) // 4,
        }

    def end(self, span: Span, outcome: engine_pb2.Outcome) -> None:
        if outcome.errors:
            span.set({"heddle.failed_sequences": len(outcome.errors)})


class BatchSpans:
    """Records one span for each pass with a recorded submission. The span is in a trace of its own, because a pass
    serves many requests. It links to the submissions, and their compute spans link to it. Thread-safe."""

    def __init__(self, tracing: Tracing, model: str) -> None:
        self._tracing = tracing
        self._model = model

    def __call__(self, batch: Batch, began_at: float) -> None:
        """Records a pass that has just ended. `began_at` is in time.monotonic() seconds."""
        recorded = [part for part in batch.parts if part.submission.traceparent]
        if recorded:
            try:
                self._record(batch, recorded, began_at)
            except Exception:  # a bug here must not end the thread, and with it the pod
                log.exception("the spans of a batch are lost")

    def _record(self, batch: Batch, recorded: Sequence[Part], began_at: float) -> None:
        formed_ns, began_ns, ended_ns = to_ns(batch.formed_at), to_ns(began_at), time.time_ns()
        tracing = self._tracing
        span = tracing.record(
            f"batch {self._model}",
            "",
            formed_ns,
            ended_ns,
            {
                "heddle.batch.tokens": batch.tokens,
                "heddle.batch.sequences": batch.items,
                "heddle.batch.submissions": len(batch.parts),
                "heddle.batch.fill": batch.tokens / batch.limits.batch_tokens_max,
                "heddle.batch.cores": batch.cores,
                "heddle.batch.express": batch.is_express,
            },
            links=[part.submission.traceparent for part in recorded],
        )
        for part in recorded:
            parent = part.submission.traceparent
            sizes = {"heddle.tokens": part.tokens, "heddle.sequences": len(part)}
            tracing.record("queue", parent, to_ns(part.submission.submitted_at), formed_ns, sizes)
            tracing.record("compute", parent, began_ns, ended_ns, sizes, links=[span.traceparent])
