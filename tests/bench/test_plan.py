"""The plan of a run fits its time limit, and compared servers take neighbouring turns."""

from dataclasses import replace

import pytest

from tests.bench.measurement import BARE, OURS
from tests.bench.plan import FULL, PHASES, QUICK, SECONDS_MIN, Plan

PEERS = ["Infinity bfloat16", "Infinity float32", "FastAPI bfloat16", "FastAPI float32"]
QUICK_PEERS = ["Infinity bfloat16"]
FULL_PLAN = Plan(FULL, PHASES, [OURS, *PEERS, "TEI float32"], [OURS, *PEERS, "TEI float32"]).fitted()
QUICK_PLAN = Plan(QUICK, PHASES, [OURS, *QUICK_PEERS], [OURS, *QUICK_PEERS]).fitted()


@pytest.mark.parametrize(("plan", "minutes_max"), [(FULL_PLAN, 25), (QUICK_PLAN, 4)])
def test_a_run_with_every_peer_fits_its_time_with_turns_that_are_worth_it(plan: Plan, minutes_max: float) -> None:
    assert plan.seconds < 60 * minutes_max
    assert plan.scope.seconds >= 1.5 * SECONDS_MIN


def test_servers_take_turns_under_each_load_before_the_next_load_begins() -> None:
    turns = FULL_PLAN.turns_of("closed")
    loads = [(turn.round, turn.workload, turn.connections) for turn in turns]
    assert loads == sorted(loads, key=loads.index)
    for load in dict.fromkeys(loads):
        servers = [turn.server for turn, its in zip(turns, loads, strict=True) if its == load]
        assert [name for name in servers if name != BARE] == list(FULL_PLAN.embedders)


def test_the_bare_engine_takes_its_turn_next_to_heddle() -> None:
    servers = [turn.server for turn in FULL_PLAN.turns_of("closed")]
    assert BARE in servers
    assert all(servers[at + 1] == OURS for at, server in enumerate(servers) if server == BARE)


def test_a_phase_that_is_not_asked_for_has_no_turns() -> None:
    assert replace(FULL_PLAN, phases=["engine"]).turns_of("closed") == []
