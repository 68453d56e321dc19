"""The counts behind a tokenizer pod's metrics: plain numbers. The servicer and the encoder add to them, and
`tokenizer_svc.metrics` reads them."""

import time
from collections import defaultdict
from typing import Any

from heddle.rpc.errors import HeddleError
from heddle.rpc.stream import Cancel, LargeOutcome, ServerReply, nothing_to_cancel
from heddle.telemetry.metrics import Distribution
from tokenizer_svc.tei_counts import TeiCounts

# Their responses have no usage and no timings.
LOCAL_TASKS = frozenset({"tokenize", "decode"})

SLICE_BUCKETS = tuple(2**exponent for exponent in range(6, 23))  # 64 bytes to 4 MiB


class TokenizerCounts:
    """Used on one event loop."""

    def __init__(self, *, with_tei_names: bool = False) -> None:
        self.requests: dict[tuple[str, str], int] = defaultdict(int)  # by task and outcome
        self.seconds: dict[str, Distribution] = defaultdict(Distribution)  # by task
        self.stage_seconds = {stage: Distribution() for stage in ("tokenize", "queue", "compute")}
        self.inputs: dict[str, int] = defaultdict(int)  # by task, as are the next three
        self.tokens: dict[str, int] = defaultdict(int)
        self.characters: dict[str, int] = defaultdict(int)
        self.truncated_inputs: dict[str, int] = defaultdict(int)
        self.refused = {"queue_full": 0, "too_late": 0}  # requests by reason
        self.slice_bytes = Distribution(SLICE_BUCKETS)
        self.encode_seconds = Distribution()
        self.tei = TeiCounts() if with_tei_names else None


class CountedRequest:
    """Counts one request when it ends. The servicer uses `reply` and `cancel` in place of the request's own."""

    __slots__ = ("_began", "_cancel", "_counts", "_inputs", "_is_over", "_reply", "_task")

    def __init__(self, counts: TokenizerCounts, task: str, reply: ServerReply[Any]) -> None:
        """`reply` is called with each outcome: an InferenceOutcome, a LargeOutcome of one, or a HeddleError."""
        self._counts = counts
        self._task = task
        self._reply = reply
        self._began = time.perf_counter()
        self._is_over = False
        self._inputs = 0
        self._cancel = nothing_to_cancel

    def start(self, inputs: int, cancel: Cancel) -> None:
        """Must be called when the request has started."""
        self._inputs = inputs
        if not self._is_over:
            self._cancel = cancel

    def reply(self, outcome: Any) -> None:
        if isinstance(outcome, HeddleError):
            self._end(outcome.kind.name.lower())
        else:
            message = outcome.outcome if isinstance(outcome, LargeOutcome) else outcome
            self._end("ok", getattr(message, self._task))
        self._reply(outcome)

    def cancel(self) -> None:
        if not self._is_over:
            cancel = self._cancel
            self._end("cancelled")
            cancel()

    def _end(self, outcome: str, response: Any = None) -> None:
        self._is_over = True
        self._cancel = nothing_to_cancel  # breaks a reference cycle with the request: see EngineRequest
        counts, task, seconds = self._counts, self._task, time.perf_counter() - self._began
        counts.requests[task, outcome] += 1
        counts.seconds[task].observe(seconds)
        counts.inputs[task] += self._inputs
        if counts.tei:
            counts.tei.count(task, outcome, self._inputs, seconds, response)
        if response is None or task in LOCAL_TASKS:
            return
        usage, timings, stages = response.usage, response.timings, counts.stage_seconds
        counts.tokens[task] += usage.tokens
        counts.characters[task] += usage.characters
        counts.truncated_inputs[task] += usage.truncated_inputs
        stages["tokenize"].observe(timings.tokenize_us / 1e6)
        stages["queue"].observe(timings.queue_us / 1e6)
        stages["compute"].observe(timings.compute_us / 1e6)
