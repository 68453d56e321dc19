"""Admission refuses exactly the work that cannot be done in time. The tests pass the time as a number."""

import math
from collections import deque
from functools import partial

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from heddle.admission import (
    DEADLINE_SHARE_MIN,
    LOWERING_PAUSE_S,
    LOWERING_S,
    RETRY_AFTER_MS_UNKNOWN,
    STALE_S,
    TURNS_MIN,
    WAIT_SHARE_MIN,
    Admission,
    Throughput,
    WorkAhead,
)
from tests.bench.arrivals import poisson_arrivals


def measured(wait_s_max: float = 5.0, passes_at_once: int = 1) -> Admission:
    """Has measured, at time 0, a pass of 0.1 s and 100 units of work per second."""
    admission = Admission(wait_s_max, passes_at_once)
    admission.throughput.measure(10, 0.1, 0.0)
    return admission


def refuse(
    admission: Admission,
    *,
    waiting: int,
    first: int | None = None,
    turns: int = TURNS_MIN + 1,
    own: int = 0,
    left_s: float = math.inf,
    now: float = 0.0,
) -> int:
    """Asks for 10 units of work. `first` units of the waiting work come first; by default all."""
    first = waiting if first is None else first
    return admission.find_retry_ms(
        10,
        waiting,
        lambda: WorkAhead(first, own, 0 if own else first, 0 if own else turns),
        busy_s=0.1,
        left_s=left_s,
        now=now,
    )


def test_nothing_is_refused_while_the_throughput_is_unknown_or_stale() -> None:
    assert not refuse(Admission(1.0), waiting=10**6, left_s=0.01)
    assert refuse(measured(), waiting=10**6, now=STALE_S - 0.01)
    assert not refuse(measured(), waiting=10**6, now=STALE_S)


def test_a_request_that_would_wait_too_long_is_told_to_retry_when_the_work_ahead_is_done() -> None:
    assert not refuse(measured(), waiting=489)
    assert refuse(measured(), waiting=500) == 5100


def test_a_request_that_would_miss_its_deadline_is_refused() -> None:
    assert not refuse(measured(), waiting=50, left_s=1.0)
    assert refuse(measured(), waiting=100, left_s=1.0) == 1100


def test_concurrent_passes_multiply_the_throughput() -> None:
    assert not refuse(measured(passes_at_once=4), waiting=1900)
    assert refuse(measured(passes_at_once=4), waiting=2000)


def test_only_work_ahead_counts() -> None:
    assert not refuse(measured(), waiting=10**6, first=100)
    assert not refuse(measured(), waiting=10**6, first=20, left_s=1.0)


def test_behind_few_turns_work_may_wait_long_but_not_past_its_deadline() -> None:
    assert not refuse(measured(), waiting=10**6, turns=TURNS_MIN)
    assert refuse(measured(), waiting=10**6, turns=TURNS_MIN, left_s=60.0)


def test_work_that_nobody_else_is_ahead_of_is_not_refused() -> None:
    assert not refuse(measured(), waiting=10**6, first=0, left_s=0.1)


def test_a_later_part_is_refused_for_its_deadline_only() -> None:
    assert not refuse(measured(), waiting=10**6, first=1000, own=1000)
    assert refuse(measured(), waiting=10**6, first=1000, own=1000, left_s=20.0)


def test_limits_shrink_while_requests_are_refused_and_are_reset_when_the_queue_is_short() -> None:
    admission = measured()
    now = 0.0
    while now < 2 * LOWERING_S:
        now += LOWERING_PAUSE_S / 2
        admission.throughput.measure(10, 0.1, now)
        refuse(admission, waiting=10**6, now=now)
        refuse(admission, waiting=90, left_s=1.0, now=now)
    assert admission.wait_s_max == pytest.approx(5.0 * WAIT_SHARE_MIN)
    assert refuse(admission, waiting=60, left_s=1.0 / DEADLINE_SHARE_MIN * 0.9, now=now)
    admission.reset_limits()
    assert admission.wait_s_max == 5.0


def test_one_refusal_lowers_the_limit_by_little() -> None:
    admission = measured()
    refuse(admission, waiting=10**6)
    assert admission.wait_s_max > 4.9


def test_the_limit_stays_above_two_passes() -> None:
    admission = Admission(1.0)
    for number in range(400):
        admission.throughput.measure(100, 0.4, number / 20)
        refuse(admission, waiting=10**6, now=number / 20)
    assert admission.wait_s_max == pytest.approx(0.8)


def test_the_retry_time_of_a_full_queue_is_the_time_until_it_is_empty() -> None:
    assert measured().estimate_retry_ms(250, 0.0) == 2500
    assert Admission(1.0).estimate_retry_ms(250, 0.0) == RETRY_AFTER_MS_UNKNOWN


def test_the_throughput_follows_a_change_within_seconds() -> None:
    throughput = Throughput()
    for number in range(30):
        throughput.measure(10, 0.1, number / 10)
    assert throughput.per_s == pytest.approx(100)
    for number in range(30, 60):
        throughput.measure(5, 0.1, number / 10)
    assert throughput.per_s == pytest.approx(50, rel=0.1)
    assert throughput.pass_s == pytest.approx(0.1)


def serve(arrivals: list[float], admission: Admission, deadline_s: float, pass_work: int, per_s: float) -> list[float]:
    """Simulates a server that computes up to `pass_work` requests of one unit in a pass, one pass after the other.
    Returns the latencies of the accepted requests."""
    queue: deque[float] = deque()
    latencies: list[float] = []
    free_at, running = 0.0, list[float]()

    def begin(now: float) -> float:
        nonlocal running
        running = [queue.popleft() for _ in range(min(pass_work, len(queue)))]
        return now + len(running) / per_s

    for now in [*arrivals, math.inf]:
        while running and free_at <= now:
            latencies += [free_at - came for came in running]
            if queue:
                admission.throughput.measure(len(running), len(running) / per_s, free_at)
            free_at = begin(free_at)
        if len(queue) < pass_work:
            admission.reset_limits()
        estimate_work_ahead = partial(WorkAhead, len(queue), 0, len(queue), len(queue))
        if len(queue) < pass_work or not admission.find_retry_ms(
            1, len(queue), estimate_work_ahead, busy_s=max(0.0, free_at - now), left_s=deadline_s, now=now
        ):
            queue.append(now)
        if not running and queue and now < math.inf:
            free_at = begin(now)
    return latencies


@settings(max_examples=15, deadline=None)
@given(
    times=st.floats(1.5, 8), deadline_passes=st.floats(6, 60), pass_work=st.integers(2, 40), seed=st.integers(0, 10**6)
)
def test_an_overloaded_server_stays_busy_and_answers_accepted_requests_in_time(
    times: float, deadline_passes: float, pass_work: int, seed: int
) -> None:
    """Deadlines are at least 6 passes away, because the throughput is unknown during the first passes."""
    per_s, seconds = 100.0, 30.0
    deadline_s = deadline_passes * pass_work / per_s
    arrivals = poisson_arrivals(times * per_s, seconds, seed)
    latencies = serve(arrivals, Admission(5.0), deadline_s, pass_work, per_s)
    in_time = sum(latency <= deadline_s for latency in latencies)
    assert in_time >= 0.95 * len(latencies)
    assert in_time >= 0.9 * per_s * seconds
