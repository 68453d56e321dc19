"""Every seed is a test case, and always the same one."""

import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.__main__ import report
from tests.simulation.world import DISTURBANCES, simulate

SEEDS = 1000
CHUNK = 100
# What a run must meet for its checks to mean something.
MET = {"answered", "cancelled", "DEADLINE_EXCEEDED", "express passes", "parts that expired", "pods lost with items"}

DIGESTS = "from tests.simulation.world import simulate; print(*(simulate(seed).digest for seed in range(8)))"


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_a_seed_violates_nothing(first: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        result = simulate(seed)
        counts += result.counts
        assert not result.violations, report(result)
    assert MET | DISTURBANCES.keys() <= counts.keys()


def test_a_seed_gives_the_same_events_again() -> None:
    for seed in range(8):
        assert simulate(seed).events == simulate(seed).events


@pytest.mark.slow
def test_a_seed_gives_the_same_events_in_another_process() -> None:
    printed = set()
    for hash_seed in ("0", "1", "2"):
        environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS], capture_output=True, text=True, env=environment, check=True
        )
        printed.add(done.stdout)
    assert len(printed) == 1


def test_seeds_differ() -> None:
    assert len({simulate(seed).digest for seed in range(8)}) == 8
