"""Measures how long passes take. The scheduler calls it, under its lock, when a pass begins and when it ends.
`heddle.admission` decides by the measured throughput.

A pass is timed from when it could have begun: when a pass was free and something waited. So the time includes the work
of a thread between two passes. Where passes run in turn on one device, a pass is timed from the end of the one before.
"""

import math

from engine_svc.batching import Batch
from heddle.admission import Throughput


class PassTimes:
    def __init__(self, throughput: Throughput, count: int, *, runs_in_turn: bool) -> None:
        """`count` is how many passes can run, or be queued on the device, at once."""
        self._throughput = throughput
        self._runs_in_turn = runs_in_turn
        self._freed_at = [-math.inf] * count  # one for each free pass: when the last one in its place ended
        self._ended_at = -math.inf  # when the latest pass ended
        self._expected_ends: dict[Batch, float] = {}  # of running passes; when they began, if the throughput is unknown

    def begin(self, batch: Batch, waiting_since: float, now: float) -> None:
        """`waiting_since` is when something came to an empty queue."""
        batch.began_at = max(self._freed_at.pop(), waiting_since)
        pass_s = batch.tokens / batch.tokens_per_s if batch.tokens_per_s else 0.0
        begins_at = max(now, *self._expected_ends.values()) if self._runs_in_turn and self._expected_ends else now
        self._expected_ends[batch] = begins_at + pass_s

    def end(self, batch: Batch, now: float) -> None:
        self._freed_at.append(now)
        if batch.parts:  # otherwise no pass has run, and another batch may be running
            if batch.others_wait:
                began_at = max(batch.began_at, self._ended_at) if self._runs_in_turn else batch.began_at
                self._throughput.measure(batch.tokens, now - began_at, now)
            self._ended_at = now
        self._expected_ends.pop(batch, None)

    def estimate_busy_s(self, now: float) -> float:
        """Seconds until another pass can begin to compute."""
        if self._runs_in_turn:
            end = max(self._expected_ends.values(), default=now)
        else:
            end = now if self._freed_at else min(self._expected_ends.values())
        return max(0.0, end - now)
