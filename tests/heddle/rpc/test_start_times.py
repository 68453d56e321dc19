"""The phases in the log line of a start add up, and each is reported once."""

import re
import time

import pytest

from heddle.rpc.start_times import describe_start, end_phase, process_began_at


def test_phases_add_up_to_the_time_since_the_process_began() -> None:
    describe_start()
    end_phase("imports")
    end_phase("warm-up")
    before = time.monotonic() - process_began_at()
    told = describe_start()
    total, phases = re.fullmatch(r"([\d.]+) s: (.*)", told).groups()  # type: ignore[union-attr]
    assert [phase.rpartition(" ")[0] for phase in phases.split(", ")] == ["imports", "warm-up"]
    assert float(total) == pytest.approx(sum(float(phase.split()[-1]) for phase in phases.split(", ")), abs=0.1)
    assert float(total) == pytest.approx(before, abs=0.1)
    assert ":" not in describe_start()
