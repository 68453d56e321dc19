"""The comparison of balancing policies, with few pods."""

from tests.simulation.balancing import measure


def test_heddles_policy_has_a_lower_p99_than_random_pods() -> None:
    figures = {policy: measure(policy, "80 %", 20) for policy in ("random", "two choices, tokens (Heddle's)")}
    assert figures["two choices, tokens (Heddle's)"].p99_s < figures["random"].p99_s
    assert all(0.5 < one.busy < 1.05 and 0 < one.p50_s < one.p99_s for one in figures.values())
