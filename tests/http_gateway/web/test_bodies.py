"""Bodies that are arriving: slow ones are given up, and the slowest make room for others."""

from collections.abc import Callable

import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from http_gateway.errors import Failure
from http_gateway.web import bodies
from http_gateway.web.bodies import PACE_BYTES_PER_S, UNSEEN_BYTES_PER_S, YOUNG_S, ArrivingBody, WaitingBodies

PAUSE_S_MAX = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bodies, "time", clock)
    return clock


class Waiting:
    """Bodies by name, and those that have been given up."""

    def __init__(self, bodies_max: int = 3, bytes_max: int = 1_000_000) -> None:
        self.all = WaitingBodies(bodies_max=bodies_max, bytes_max=bytes_max, pause_s_max=PAUSE_S_MAX)
        self.ended: dict[str, Exception] = {}

    def begin(self, name: str, unseen_size: int = 0) -> ArrivingBody:
        return self.all.begin(self._note(name), unseen_size)

    def _note(self, name: str) -> Callable[[Exception], None]:
        return lambda error: self.ended.update({name: error})


def test_a_body_may_pause_but_not_for_longer(clock: Clock) -> None:
    waiting = Waiting()
    paused, silent = waiting.begin("paused"), waiting.begin("silent")
    clock.now += 9
    waiting.all.count(paused, 100_000)
    clock.now += 9
    waiting.all.check()
    assert list(waiting.ended) == ["silent"]
    clock.now += 2
    waiting.all.check()
    assert list(waiting.ended) == ["silent", "paused"]
    failure = waiting.ended["paused"]
    assert isinstance(failure, Failure)
    assert failure.status == 408
    assert not len(waiting.all)
    assert waiting.all.bytes == 0
    waiting.all.finish(silent)


def test_a_trickle_has_time_while_there_is_room_and_is_the_first_to_make_room(clock: Clock) -> None:
    waiting = Waiting(bodies_max=2)
    rates = {"steady": PACE_BYTES_PER_S, "slow": 1000}
    arriving = {name: waiting.begin(name) for name in rates}
    for _ in range(25):
        clock.now += 1
        for name, rate in rates.items():
            waiting.all.count(arriving[name], rate)
        waiting.all.check()
    assert not waiting.ended
    waiting.begin("new")
    assert list(waiting.ended) == ["slow"]


def test_a_body_whose_pieces_are_not_seen_has_time_for_its_size(clock: Clock) -> None:
    waiting = Waiting()
    waiting.begin("whole", unseen_size=5 * UNSEEN_BYTES_PER_S)
    clock.now += PAUSE_S_MAX + 4
    waiting.all.check()
    assert not waiting.ended
    clock.now += 2
    waiting.all.check()
    assert list(waiting.ended) == ["whole"]


def test_the_slowest_makes_place_for_a_new_one(clock: Clock) -> None:
    waiting = Waiting(bodies_max=3)
    first = waiting.begin("first")
    clock.now += YOUNG_S
    waiting.begin("second")
    clock.now += 0.1
    waiting.begin("third", unseen_size=64_000)
    clock.now += YOUNG_S
    waiting.all.count(first, 100_000)
    waiting.begin("fourth")
    assert list(waiting.ended) == ["second"]
    assert len(waiting.all) == 3


def test_young_bodies_are_not_given_up(clock: Clock) -> None:
    waiting = Waiting(bodies_max=2)
    for name in ("first", "second"):
        waiting.begin(name)
    with pytest.raises(HeddleError) as refused:
        waiting.begin("third")
    assert refused.value.kind is ErrorKind.OVERLOADED
    assert not waiting.ended


def test_slow_bodies_make_room_for_bytes_and_fast_ones_do_not(clock: Clock) -> None:
    waiting = Waiting(bodies_max=9, bytes_max=100_000)
    slow, fast, empty = (waiting.begin(name) for name in ("slow", "fast", "empty"))
    waiting.all.count(slow, 60_000)
    clock.now += 6
    waiting.all.count(fast, 60_000)
    assert list(waiting.ended) == ["slow"]
    with pytest.raises(HeddleError) as refused:
        waiting.all.count(fast, 60_000)
    assert refused.value.kind is ErrorKind.OVERLOADED
    waiting.all.finish(fast)
    waiting.all.finish(fast)
    waiting.all.finish(empty)
    assert waiting.all.bytes == 0
