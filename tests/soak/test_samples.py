"""Growth is found in samples, and noise is not."""

from itertools import cycle, islice

from tests.soak.samples import MIB, Series


def test_a_slow_leak_below_large_swings_is_growth() -> None:
    leak = [100 * MIB + second * MIB / 10 + swing * MIB for second, swing in zip(range(600), cycle((0, 90, 30)))]
    assert Series("gateway", "memory", leak).grows


def test_swings_and_a_peak_are_none() -> None:
    assert not Series("gateway", "threads", list(islice(cycle((20, 3000, 3000, 22)), 200))).grows
    assert not Series("gateway", "memory", [100 * MIB] * 90 + [900 * MIB] * 10).grows
