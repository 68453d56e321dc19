"""Counts with the names and buckets of Text Embeddings Inference, for dashboards made for it. `TokenizerCounts` has one
if the setting `tei_metrics` is on."""

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from heddle.telemetry.metrics import Distribution, Metric, histogram, untyped

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

# TEI's buckets: 15 us to 15 s, and powers of two.
SECONDS_BUCKETS = tuple(1e-5 * 1.5**exponent for exponent in range(1, 36))
LENGTH_BUCKETS = tuple(float(2**exponent) for exponent in range(20))

# TEI's name of each task. Other tasks are not counted.
KIND_OF_TASK = {
    **dict.fromkeys(("embed", "embed_tokens", "embed_sparse", "similarity"), "embed"),
    **dict.fromkeys(("rerank", "predict", "predict_tokens"), "predict"),
}

# TEI's name of each outcome.
ERROR_OF_OUTCOME = {
    **dict.fromkeys(("invalid_input", "empty_input", "too_large", "model_not_found", "unimplemented"), "validation"),
    "wrong_task": "model_type",
    "overloaded": "overloaded",
    **dict.fromkeys(("cancelled", "deadline_exceeded"), "dropped"),
    "bad_output": "missing_values",
}

STAGES = ("duration", "tokenization_duration", "queue_duration", "inference_duration")


def declare_durations(subject: str, each: str) -> dict[str, Metric]:
    return {stage: histogram(f"te_{subject}_{stage}", f"TEI's {stage} of {each}, in seconds") for stage in STAGES}


REQUEST_COUNT = untyped("te_request_count", "Requests, as TEI counts them: single or batch", "method")
REQUEST_SUCCESS = untyped("te_request_success", "Requests that were answered, as TEI counts them", "method")
REQUEST_FAILURE = untyped("te_request_failure", "Requests that failed, by TEI's name of the error", "err")
INPUT_LENGTH = histogram("te_request_input_length", "Tokens of an input, as TEI counts them")
COUNT = {kind: untyped(f"te_{kind}_count", f"Inputs to {kind}, as TEI counts them") for kind in ("embed", "predict")}
SUCCESS = {kind: untyped(f"te_{kind}_success", f"Inputs that {kind} answered, as TEI counts them") for kind in COUNT}
DURATIONS = {
    "request": declare_durations("request", "a request"),
    **{kind: declare_durations(kind, "an input") for kind in COUNT},
}


class TeiCounts:
    """Used on one event loop."""

    def __init__(self) -> None:
        self.input_length = Distribution(LENGTH_BUCKETS)
        self._requests = {"single": 0, "batch": 0}
        self._successes = {"single": 0, "batch": 0}
        self._failures: dict[str, int] = defaultdict(int)
        self._inputs = dict.fromkeys(COUNT, 0)
        self._answered_inputs = dict.fromkeys(COUNT, 0)
        self._seconds = {subject: {stage: Distribution(SECONDS_BUCKETS) for stage in STAGES} for subject in DURATIONS}

    def count_lengths(self, lengths: Iterable[int]) -> None:
        """`lengths` are the tokens of each input."""
        for length in lengths:
            self.input_length.observe(length)

    def count(self, task: str, outcome: str, inputs: int, seconds: float, response: Any) -> None:
        """Counts a request that has ended. `response` has timings if the outcome is ok."""
        kind = KIND_OF_TASK.get(task)
        if kind is None:
            return
        method = "batch" if inputs > 1 else "single"
        self._requests[method] += 1
        self._inputs[kind] += inputs
        if outcome != "ok":
            self._failures[ERROR_OF_OUTCOME.get(outcome, "inference")] += 1
            return
        self._successes[method] += 1
        self._answered_inputs[kind] += inputs
        timings = response.timings
        stages = (seconds, timings.tokenize_us / 1e6, timings.queue_us / 1e6, timings.compute_us / 1e6)
        for stage, value in zip(STAGES, stages, strict=True):
            self._seconds["request"][stage].observe(value)
            self._seconds[kind][stage].observe(value, inputs)

    def collect(self) -> Iterable["Family"]:
        yield REQUEST_COUNT.of(self._requests)
        yield REQUEST_SUCCESS.of(self._successes)
        yield REQUEST_FAILURE.of(self._failures)
        yield INPUT_LENGTH.of(self.input_length)
        yield from (COUNT[kind].of(inputs) for kind, inputs in self._inputs.items())
        yield from (SUCCESS[kind].of(inputs) for kind, inputs in self._answered_inputs.items())
        for subject, stages in DURATIONS.items():
            for stage, metric in stages.items():
                yield metric.of(self._seconds[subject][stage])
