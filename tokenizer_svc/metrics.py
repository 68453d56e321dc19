"""The metrics of a tokenizer pod. `tokenizer_svc.__main__` serves them."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from heddle.rpc.metrics import ABANDONED, EXPIRED, PODS, RETRIES, UNANSWERED
from heddle.telemetry.metrics import counter, gauge, histogram
from tokenizer_svc.counts import TokenizerCounts
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.unary_engines import UnaryEngines

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

REQUESTS = counter(
    "heddle_tokenizer_requests_total",
    "Requests by task and outcome: ok, cancelled, or the kind of the error",
    "task",
    "outcome",
)
SECONDS = histogram("heddle_tokenizer_request_seconds", "Duration of requests, from arrival to answer", "task")
STAGE_SECONDS = histogram(
    "heddle_tokenizer_stage_seconds", "Stages of the requests that engines answered: tokenize, queue, compute", "stage"
)
INPUTS = counter("heddle_tokenizer_inputs_total", "Inputs of finished requests", "task")
TOKENS = counter("heddle_tokenizer_tokens_total", "Tokens of the requests that engines answered", "task")
CHARACTERS = counter("heddle_tokenizer_characters_total", "Characters of the requests that engines answered", "task")
TRUNCATED = counter("heddle_tokenizer_truncated_inputs_total", "Inputs that were truncated", "task")
REFUSED = counter(
    "heddle_tokenizer_refused_requests_total", "Refused requests, by reason: queue_full or too_late", "reason"
)

RUNNING_REQUESTS = gauge("heddle_tokenizer_running_requests", "Requests in progress")
QUEUED_REQUESTS = gauge("heddle_tokenizer_queued_requests", "Requests that wait to be tokenized")
QUEUED_BYTES = gauge("heddle_tokenizer_queued_bytes", "Bytes of text that wait to be tokenized")
QUEUED_BYTES_MAX = gauge("heddle_tokenizer_queued_bytes_max", "Limit of waiting bytes; beyond it requests are refused")
QUEUE_AGE = gauge(
    "heddle_tokenizer_queue_age_seconds", "How long the oldest request has waited to be tokenized; 0 if none waits"
)
SLICE_BYTES = histogram("heddle_tokenizer_slice_bytes", "Bytes of text tokenized in one call")
ENCODE_SECONDS = histogram("heddle_tokenizer_encode_seconds", "Duration of one call that tokenizes")
ANSWERS_BYTES = gauge("heddle_tokenizer_answers_bytes", "Bytes of answers in progress")


def collect_unary_engines(model: str, engines: UnaryEngines) -> Iterable["Family"]:
    """Yields the metrics of `heddle.rpc.metrics.collect_pools`. All engines behind the target count as one pod."""
    yield PODS.of({(model, "connected"): int(engines.ready), (model, "unreachable"): int(not engines.ready)})
    yield RETRIES.of({model: engines.counts.resent})
    yield ABANDONED.of({model: engines.counts.abandoned})
    yield EXPIRED.of({model: engines.counts.expired})
    yield UNANSWERED.of({model: engines.unanswered})


class TokenizerMetrics:
    def __init__(
        self,
        counts: TokenizerCounts,
        encoder: Encoder,
        *,
        running_requests: Callable[[], int],
        answers_bytes: Callable[[], int],
    ) -> None:
        self._counts = counts
        self._encoder = encoder
        self._running_requests = running_requests
        self._answers_bytes = answers_bytes

    def collect(self) -> Iterable["Family"]:
        yield from self._collect_requests()
        yield from self._collect_encoder()
        if self._counts.tei:
            yield from self._counts.tei.collect()

    def _collect_requests(self) -> Iterable["Family"]:
        counts = self._counts
        yield REQUESTS.of(counts.requests)
        yield SECONDS.of(counts.seconds)
        yield STAGE_SECONDS.of(counts.stage_seconds)
        yield INPUTS.of(counts.inputs)
        yield TOKENS.of(counts.tokens)
        yield CHARACTERS.of(counts.characters)
        yield TRUNCATED.of(counts.truncated_inputs)
        yield RUNNING_REQUESTS.of(self._running_requests())
        yield ANSWERS_BYTES.of(self._answers_bytes())

    def _collect_encoder(self) -> Iterable["Family"]:
        encoder = self._encoder
        yield QUEUED_REQUESTS.of(encoder.waiting_jobs)
        yield QUEUED_BYTES.of(encoder.waiting_bytes)
        yield QUEUED_BYTES_MAX.of(encoder.waiting_bytes_max)
        yield QUEUE_AGE.of(encoder.measure_age())
        yield REFUSED.of(self._counts.refused)
        yield SLICE_BYTES.of(self._counts.slice_bytes)
        yield ENCODE_SECONDS.of(self._counts.encode_seconds)
