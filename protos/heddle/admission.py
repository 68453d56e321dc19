"""Decides whether new work can be done in its time, before it joins a queue. Used by the engine's scheduler and the
tokenizer's encoder.

Under overload, a queue that accepts everything spends its time on requests whose callers have given up. So a server
measures its throughput, estimates when a request's turn would come, and refuses at once a request that would be late. A
refused request costs nothing.

* `Throughput` measures passes only while other work waits. A pass that left nothing waiting says little about the
  throughput of a busy server.
* A request waits for the work ahead of it in fair shares (`heddle.turns.Turns.weight_before`). The bulk work of one
  caller does not make a server refuse the query of another.
* A request may not wait longer than `wait_s_max`, unless few turns come before its own (`TURNS_MIN`). Callers of a slow
  model may hold many connections and send the next request after each answer. They wait, but do not overload it.
  A request that already has work in the queue is not refused for its wait: it is only long.
* The last result of a request must come before its deadline.
* While requests are refused, the limit that they exceed is lowered step by step, until the queue has been short. A
  burst may wait, but a queue that never empties only adds latency: a short one refuses no more requests.
* Nothing is refused while the waiting work fits into one pass, or while no other caller's work comes first.

The lowered limit is the idea of Nichols and Jacobson (Controlling Queue Delay, ACM Queue 2012), which Maurer applied to
servers (Fail at Scale, ACM Queue 2015). Maurer also serves the newest request first under overload. That order is not
needed here, because all accepted work can be done in time. DAGOR (Zhou et al., SoCC 2018) and Breakwater (Cho et al.,
OSDI 2020) also refuse by queueing time rather than by CPU load.

Amounts of work are in any unit: tokens on the engine, bytes of text in the tokenizer. Times are seconds of one clock.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

# This many turns may always come before a request's first one. HTTP clients open 100 connections by default (httpx,
# aiohttp): two such clients are served, however slow the server is.
TURNS_MIN = 200

# Measurements fade within about MEMORY_S of passes, and the throughput is unknown STALE_S after the last one.
MEMORY_S = 1.0
STALE_S = 10.0

# While requests are refused, `wait_s_max` and the time until a deadline shrink to these shares within LOWERING_S. Half
# the time until a deadline suffices: when a second caller comes, the waiting work of the first takes twice as long, and
# is still done in time. One refusal lowers a limit for LOWERING_PAUSE_S at most, so a single one changes little.
WAIT_SHARE_MIN = 0.1
DEADLINE_SHARE_MIN = 0.5
LOWERING_S = 6.0
LOWERING_PAUSE_S = 0.1

# The error of an estimate, and the time that an answer needs to reach its caller.
ERROR_SHARE = 0.2
TRANSIT_S = 0.01

# A pass is not made shorter than this share of a full one for the sake of a deadline.
SHORT_PASS_SHARE = 0.25

RETRY_AFTER_MS_UNKNOWN = 1000


class Throughput:
    """The throughput of passes that run one after the other, in work per second."""

    def __init__(self) -> None:
        self._work = self._seconds = self._passes = 0.0
        self._measured_at = -math.inf

    def measure(self, work: int, seconds: float, now: float) -> None:
        """Adds a pass during which other work waited. `seconds` count from when the pass could begin until its end."""
        seconds = max(seconds, 1e-6)
        kept = math.exp(-seconds / MEMORY_S) if self.is_known(now) else 0.0
        self._work = kept * self._work + work
        self._seconds = kept * self._seconds + seconds
        self._passes = kept * self._passes + 1
        self._measured_at = now

    def is_known(self, now: float) -> bool:
        return now - self._measured_at < STALE_S

    @property
    def per_s(self) -> float:
        """Work per second. Must be known."""
        return self._work / self._seconds

    @property
    def pass_s(self) -> float:
        """Mean duration of a pass. Must be known."""
        return self._seconds / self._passes


class WorkAhead(NamedTuple):
    """An estimate of the waiting work that is done before new work of a request."""

    before_last: int  # work of others until the new work is done
    own: int = 0  # work of the same request that waits already
    # Work of others until the new work begins, and its turns. Both are 0 if work of the same request waits already.
    before_first: int = 0
    turns_first: int = 0


class LimitShare:
    """The share of a limit that applies. Refusals lower it from 1 to `least`."""

    def __init__(self, least: float) -> None:
        self.share = 1.0
        self._least = least
        self._lowered_at = -math.inf

    def lower(self, now: float) -> None:
        """Must be called for each refusal."""
        step = (1 - self._least) / LOWERING_S * min(now - self._lowered_at, LOWERING_PAUSE_S)
        self.share = max(self._least, self.share - step)
        self._lowered_at = now


class Admission:
    """Decides for one queue. Not thread-safe."""

    def __init__(self, wait_s_max: float, passes_at_once: int = 1) -> None:
        """`passes_at_once` is the number of passes that run at the same time while the server is busy."""
        self.throughput = Throughput()
        self._wait_s_max = wait_s_max
        self._passes_at_once = passes_at_once
        self._wait, self._deadline = LimitShare(WAIT_SHARE_MIN), LimitShare(DEADLINE_SHARE_MIN)

    def reset_limits(self) -> None:
        """Restores the limits. Must be called whenever the queue is short."""
        self._wait.share = self._deadline.share = 1.0

    def find_retry_ms(
        self,
        work: int,
        waiting: int,
        estimate_work_ahead: Callable[[], WorkAhead],
        *,
        busy_s: float,
        left_s: float,
        now: float,
    ) -> int:
        """Returns 0 if the work may join the queue, otherwise the milliseconds after which a retry makes sense.

        `waiting` is all work in the queue, and `estimate_work_ahead` says how much of it comes first. `busy_s` is the
        time until the next pass can begin, `left_s` the time until the deadline of the new work."""
        if not self.throughput.is_known(now):
            return 0
        per_s = self.throughput.per_s * self._passes_at_once
        waiting_s = busy_s + waiting / per_s
        if waiting_s <= self.wait_s_max and self._is_done_in(left_s, waiting_s + work / per_s):
            return 0  # even if all waiting work comes first
        ahead = estimate_work_ahead()
        if not ahead.before_last:
            return 0
        before_s = busy_s + (ahead.before_last + ahead.own) / per_s
        if ahead.turns_first > TURNS_MIN and busy_s + ahead.before_first / per_s > self.wait_s_max:
            self._wait.lower(now)
        elif self._is_done_in(left_s, before_s + work / per_s):
            return 0
        else:
            self._deadline.lower(now)
        return to_ms(before_s)

    @property
    def wait_s_max(self) -> float:
        """The longest wait that is accepted now. The throughput must be known."""
        return max(self._wait.share * self._wait_s_max, min(2 * self.throughput.pass_s, self._wait_s_max))

    def measure_throughput(self, now: float) -> float:
        """Work per second of all passes together; 0 if it is unknown."""
        return self.throughput.per_s * self._passes_at_once if self.throughput.is_known(now) else 0.0

    def estimate_retry_ms(self, waiting: int, now: float) -> int:
        """The milliseconds until all waiting work is done."""
        per_s = self.measure_throughput(now)
        return to_ms(waiting / per_s) if per_s else RETRY_AFTER_MS_UNKNOWN

    def _is_done_in(self, left_s: float, end_s: float) -> bool:
        """`end_s` is when the work would end if each result came at once. Results come at the end of a pass, so one
        more pass is added."""
        pass_s = self.throughput.pass_s
        pass_s = min(pass_s, max(SHORT_PASS_SHARE * left_s, SHORT_PASS_SHARE * pass_s))
        return (1 + ERROR_SHARE) * (end_s + pass_s) + TRANSIT_S <= self._deadline.share * left_s


def to_ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
