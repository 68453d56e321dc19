"""The queueing model against what must hold of any queue, and against the simulation."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from heddle.planning.balancing import Policy
from heddle.planning.capacity import pods_visited
from heddle.planning.cpu_tier import RequestCost, pods_needed, tier_figures
from heddle.planning.delays import Delays
from heddle.planning.engine import EngineModel
from heddle.planning.queueing import OverloadedError, pod_figures
from heddle.planning.simulation import Cluster, simulated
from heddle.planning.traffic import Traffic, WholeNumbers
from tests.heddle.planning.shapes import FAST, QUERIES, SEVERAL, SINGLE, SMALL, TEXTS, traffic_at

ENGINES = st.builds(
    EngineModel,
    fixed_s=st.floats(1e-4, 5e-2),
    per_token_s=st.floats(1e-7, 5e-5),
    batch_tokens_max=st.integers(1024, 32_768),
    batch_items_max=st.integers(16, 1024),
)
TOKENS = st.builds(WholeNumbers, st.floats(4, 200), st.sampled_from([0.0, 0.5, 1.0]), st.just(512))


@given(ENGINES, TOKENS, st.floats(0.02, 0.9), st.integers(1, 50))
@settings(max_examples=8, deadline=None)
def test_as_many_tokens_leave_as_arrive(engine: EngineModel, tokens: WholeNumbers, load: float, pods: int) -> None:
    traffic = traffic_at(load, engine, pods, tokens)
    figures = pod_figures(engine, traffic, pods)
    batches_per_s = figures.busy / engine.batch_s(figures.batch_tokens)
    assert batches_per_s * figures.batch_tokens * pods == pytest.approx(traffic.tokens_per_s, rel=0.08)
    assert 0 < figures.busy <= 1 + 1e-9


@given(ENGINES, TOKENS, st.floats(0.05, 0.8))
@settings(max_examples=8, deadline=None)
def test_latency_and_batches_grow_with_load(engine: EngineModel, tokens: WholeNumbers, load: float) -> None:
    less, more = (pod_figures(engine, traffic_at(share, engine, 1, tokens), 1) for share in (load, load + 0.1))
    assert less.latency.mean_s < more.latency.mean_s
    assert less.batch_tokens < more.batch_tokens
    assert less.busy < more.busy + 1e-6
    assert less.latency.seconds.min() >= engine.fixed_s


@pytest.mark.parametrize(
    ("engine", "tokens", "inputs", "load", "pods"),
    [
        (FAST, TEXTS, SINGLE, 0.1, 1),
        (FAST, QUERIES, SINGLE, 0.5, 1),
        (SMALL, TEXTS, SINGLE, 0.1, 1),
        (SMALL, TEXTS, SINGLE, 0.5, 8),
        (SMALL, QUERIES, SINGLE, 0.9, 1),
        (FAST, TEXTS, SEVERAL, 0.5, 8),
        (SMALL, QUERIES, SEVERAL, 0.7, 8),
    ],
)
def test_the_simulation_agrees_where_pods_are_drawn_at_random(
    engine: EngineModel, tokens: WholeNumbers, inputs: WholeNumbers, load: float, pods: int
) -> None:
    traffic = traffic_at(load, engine, pods, tokens, inputs)
    figures = pod_figures(engine, traffic, pods)
    latency = figures.latency.slowest_of(pods_visited(traffic, pods))
    run = simulated(Cluster(engine, pods, 4, 0.0), traffic, Policy.RANDOM, sequences=60_000)
    assert latency.quantile_s(0.5) == pytest.approx(run.latency_s(0.5), rel=0.05)
    assert latency.quantile_s(0.99) == pytest.approx(run.latency_s(0.99), rel=0.12)
    assert figures.busy == pytest.approx(run.utilization, abs=0.02)


def test_a_lone_sequence_takes_its_own_batch() -> None:
    figures = pod_figures(SMALL, Traffic(0.001, SINGLE, QUERIES), 1)
    assert figures.latency.quantile_s(0.5) == pytest.approx(SMALL.batch_s(8), rel=1e-3)


def test_more_than_the_pod_can_do_is_refused() -> None:
    with pytest.raises(OverloadedError):
        pod_figures(SMALL, traffic_at(1.01, SMALL), 1)


def test_the_full_batch_is_the_most_that_fits() -> None:
    assert SMALL.full_batch_tokens(WholeNumbers(1000, 0, 1000)) == 2000  # not 2048: two whole ones
    assert SMALL.full_batch_tokens(QUERIES) == 64 * 8  # the limit of sequences
    assert SMALL.full_batch_tokens(WholeNumbers(5000, 0, 5000)) == 5000  # alone


@given(st.floats(0.05, 0.95))
def test_a_cpu_pod_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: a wait of load / (1 - load) / 2 services."""
    figures = tier_figures(RequestCost(1e-3, 0, 0), Traffic(1000 * load, SINGLE, QUERIES), 1)
    assert figures.load == pytest.approx(load)
    assert figures.latency.mean_s == pytest.approx(1e-3 * (1 + load / (1 - load) / 2), rel=0.03)


@given(st.floats(1, 1e5), st.floats(0.1, 0.9))
def test_cpu_pods_are_the_fewest_that_keep_the_load(requests_per_s: float, load_max: float) -> None:
    cost, traffic = RequestCost(1e-4, 1e-5, 1e-6), Traffic(requests_per_s, SEVERAL, TEXTS)
    pods = pods_needed(cost, traffic, load_max)
    assert tier_figures(cost, traffic, pods).load <= load_max + 1e-9
    assume(pods > 1)
    assert requests_per_s * cost.mean_s(traffic) / (pods - 1) > load_max


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 8))
def test_delays_add_and_the_slowest_of_several_is_no_quicker(first: float, second: float, count: int) -> None:
    spread = Delays(np.linspace(first, first + 1, 400))
    assert spread.plus(Delays.always(second)).mean_s == pytest.approx(first + second + 0.5)
    counts = np.zeros(count + 1)
    counts[count] = 1
    # The mean of the largest of n numbers between 0 and 1 is n / (n + 1).
    assert spread.slowest_of(counts).mean_s == pytest.approx(first + count / (count + 1), abs=0.01)
