"""The metrics of an engine pod. `engine_svc.pod` serves them.

Routers and autoscalers read the gauges of queued and running requests and of queued tokens, so their names must not
change. An engine's request is a submission: up to 32 sequences of one caller's request.
"""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine_svc.scheduler import Scheduler
from engine_svc.worker import Worker
from heddle.rpc.errors import ErrorKind
from heddle.telemetry.metrics import counter, gauge, histogram

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

QUEUED_REQUESTS = gauge("heddle_engine_queued_requests", "Submissions that wait for a pass")
QUEUED_SEQUENCES = gauge("heddle_engine_queued_sequences", "Sequences that wait for a pass")
QUEUED_TOKENS = gauge("heddle_engine_queued_tokens", "Tokens that wait for a pass")
QUEUED_TOKENS_MAX = gauge(
    "heddle_engine_queued_tokens_max", "Limit of waiting tokens; beyond it submissions are refused"
)
QUEUE_AGE = gauge("heddle_engine_queue_age_seconds", "How long the oldest submission has waited; 0 if none waits")
RUNNING_REQUESTS = gauge("heddle_engine_running_requests", "Submissions that are being computed")
RUNNING_SEQUENCES = gauge("heddle_engine_running_sequences", "Sequences that are being computed")
RUNNING_TOKENS = gauge("heddle_engine_running_tokens", "Tokens that are being computed")
RUNNING_PASSES = gauge("heddle_engine_running_passes", "Forward passes in progress")
BUSY_THROUGHPUT = gauge(
    "heddle_engine_busy_tokens_per_second",
    "Throughput measured while submissions wait, on which admission relies; 0 if unknown",
)

SUBMISSIONS = counter(
    "heddle_engine_submissions_total", "Submissions by outcome: ok, cancelled, or the kind of the error", "outcome"
)
SUBMISSION_SECONDS = histogram("heddle_engine_submission_seconds", "Duration of submissions, from arrival to outcome")
REFUSED = counter(
    "heddle_engine_refused_submissions_total",
    "Refused submissions, by reason: queue_full, too_late or closed",
    "reason",
)
CANCELLED = counter("heddle_engine_cancelled_sequences_total", "Sequences cancelled while they waited")
EXPIRED = counter("heddle_engine_expired_sequences_total", "Sequences dropped from the queue because of their deadline")
QUEUE_SECONDS = histogram(
    "heddle_engine_queue_seconds", "How long submissions waited, counted once per batch they are in"
)

PASS_SECONDS = histogram("heddle_engine_pass_seconds", "Duration of forward passes, by kind: normal or express", "kind")
BATCH_TOKENS = histogram("heddle_engine_batch_tokens", "Tokens per batch")
BATCH_SEQUENCES = histogram("heddle_engine_batch_sequences", "Sequences per batch")
BATCH_FILL = histogram(
    "heddle_engine_batch_fill_ratio", "Used share of the batch limit of tokens or sequences, whichever is larger"
)
BATCH_TOKENS_MAX = gauge("heddle_engine_batch_tokens_max", "Limit of tokens per batch")
SEQUENCES = counter("heddle_engine_sequences_total", "Sequences of finished passes, with duplicates")
TOKENS = counter("heddle_engine_tokens_total", "Tokens of finished passes, with duplicates")
DUPLICATE_SEQUENCES = counter(
    "heddle_engine_duplicate_sequences_total", "Sequences not computed because their batch has an equal one"
)
DUPLICATE_TOKENS = counter(
    "heddle_engine_duplicate_tokens_total", "Tokens not computed because their batch has an equal sequence"
)
FAILED = counter(
    "heddle_engine_failed_sequences_total", "Sequences that could not be computed, by kind of error", "kind"
)
HALVED = counter("heddle_engine_halved_batches_total", "Batches that failed and were computed again in two halves")
DEVICE_MEMORY = gauge(
    "heddle_engine_device_memory_bytes",
    "GPU memory: total, used by all processes, reserved by this PyTorch, allocated for tensors",
    "kind",
)

# Names of Text Embeddings Inference.
TE_QUEUE_SIZE = gauge("te_queue_size", "Sequences that wait, as TEI counts them")
TE_BATCH_SIZE = histogram("te_batch_next_size", "Sequences of a batch, as TEI counts them")
TE_BATCH_TOKENS = histogram("te_batch_next_tokens", "Tokens of a batch, as TEI counts them")


# Samples that exist before their first event. Prometheus does not see an increase from a missing sample.
OUTCOMES = dict.fromkeys(("ok", *(kind.name.lower() for kind in ErrorKind)), 0)
REASONS = dict.fromkeys(("closed", "queue_full", "too_late"), 0)
FAILURES = dict.fromkeys(("bad_output", "internal", "overloaded"), 0)


class EngineMetrics:
    def __init__(self, scheduler: Scheduler, worker: Worker, *, with_tei_names: bool) -> None:
        self._scheduler = scheduler
        self._worker = worker
        self._with_tei_names = with_tei_names

    def collect(self) -> Iterable["Family"]:
        yield from self._collect_load()
        yield from self._collect_submissions()
        yield from self._collect_passes()
        # Not before the model is loaded: other calls to the device can break the capture of CUDA graphs.
        yield DEVICE_MEMORY.of(measure_device_memory() if self._worker.loaded.done() else {})
        if self._with_tei_names:
            counts = self._scheduler.counts
            yield TE_QUEUE_SIZE.of(self._scheduler.load().waiting_items)
            yield TE_BATCH_SIZE.of(counts.batch_sequences)
            yield TE_BATCH_TOKENS.of(counts.batch_tokens)

    def _collect_load(self) -> Iterable["Family"]:
        waiting, limits = self._scheduler.measure_queue(), self._scheduler.limits
        yield QUEUED_REQUESTS.of(waiting.submissions)
        yield QUEUED_SEQUENCES.of(waiting.sequences)
        yield QUEUED_TOKENS.of(waiting.tokens)
        yield QUEUED_TOKENS_MAX.of(limits.queue_tokens_max)
        yield QUEUE_AGE.of(waiting.age_s)
        running = self._worker.running
        yield RUNNING_REQUESTS.of(len({part.submission for batch in running for part in batch.parts}))
        yield RUNNING_SEQUENCES.of(sum(batch.items for batch in running))
        yield RUNNING_TOKENS.of(sum(batch.tokens for batch in running))
        yield RUNNING_PASSES.of(len(running))
        yield BATCH_TOKENS_MAX.of(limits.batch_tokens_max)
        yield BUSY_THROUGHPUT.of(self._scheduler.measure_throughput())

    def _collect_submissions(self) -> Iterable["Family"]:
        counts = self._scheduler.counts
        yield SUBMISSIONS.of(OUTCOMES | counts.submissions)
        yield SUBMISSION_SECONDS.of(counts.submission_seconds)
        yield REFUSED.of(REASONS | counts.refused)
        yield CANCELLED.of(counts.cancelled_sequences)
        yield EXPIRED.of(counts.expired_sequences)
        yield QUEUE_SECONDS.of(counts.queue_seconds)

    def _collect_passes(self) -> Iterable["Family"]:
        counts = self._scheduler.counts
        yield PASS_SECONDS.of(counts.pass_seconds)
        yield BATCH_TOKENS.of(counts.batch_tokens)
        yield BATCH_SEQUENCES.of(counts.batch_sequences)
        yield BATCH_FILL.of(counts.batch_fill)
        yield SEQUENCES.of(counts.sequences)
        yield TOKENS.of(counts.tokens)
        yield DUPLICATE_SEQUENCES.of(counts.duplicate_sequences)
        yield DUPLICATE_TOKENS.of(counts.duplicate_tokens)
        yield FAILED.of(FAILURES | counts.failed_sequences)
        yield HALVED.of(counts.halved_batches)


def measure_device_memory() -> dict[str, int]:
    """Returns bytes by kind of memory; empty without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {
        "total": total,
        "used": total - free,
        "reserved": torch.cuda.memory_reserved(),
        "allocated": torch.cuda.memory_allocated(),
    }
