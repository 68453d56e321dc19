"""The queueing formulas of `heddle plan`, against a plain simulation of the same queues and what any queue must do."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from heddle.cli.capacity import (
    Amount,
    CpuCost,
    EnginePod,
    Floats,
    Goals,
    ImpossibleError,
    Services,
    Traffic,
    cpu_tier,
    engine_tier,
    plan_pods,
    quantile,
)

FAST = EnginePod(2e-3, 1e-6, 16_384, 1024)
SMALL = EnginePod(20e-3, 20e-6, 4096, 64)
STEEP = EnginePod(1e-3, 4e-6, 16_384, 1024)  # nearly all of a batch's time is its tokens

ONE, FOUR = Amount(1), Amount(4)
TEXTS = Amount.with_spread(128, 0.8)
QUERIES = Amount(8)
FREE = CpuCost(0, 0, 0)
COSTS = CpuCost(1e-4, 1e-5, 1e-7), CpuCost(1e-4, 5e-5, 1e-6)


def traffic_at(load: float, engine: EnginePod, pods: int, inputs: Amount, tokens: Amount) -> Traffic:
    per_s = load * pods * engine.tokens_per_s_max(tokens)
    return Traffic(per_s / (inputs.mean * tokens.mean), inputs, tokens)


def simulated(engine: EnginePod, traffic: Traffic, pods: int, requests: int = 40_000) -> Floats:
    """Latencies of requests whose inputs go to random pods, each of which runs what waits, in the order of arrival."""
    random = np.random.default_rng(7)
    arrivals = np.cumsum(random.exponential(1 / traffic.requests_per_s, requests))
    request_of = np.repeat(np.arange(requests), round(traffic.inputs.mean))
    sizes = drawn(traffic.tokens, request_of.size, random)
    pod_of = random.integers(0, pods, request_of.size)
    answered = np.zeros(requests)
    for pod in range(pods):
        mine = np.flatnonzero(pod_of == pod)
        for batch, end_s in batches(engine, arrivals[request_of[mine]].tolist(), sizes[mine].tolist()):
            done = request_of[mine[batch]]
            answered[done] = np.maximum(answered[done], end_s)
    return (answered - arrivals)[requests // 10 :]


def batches(engine: EnginePod, times: list[float], sizes: list[float]) -> list[tuple[slice, float]]:
    """What a pod runs together, and when that ends."""
    found = []
    now_s, begin = 0.0, 0
    while begin < len(times):
        now_s = max(now_s, times[begin])
        end, tokens = begin, 0.0
        while end < len(times) and times[end] <= now_s and end - begin < engine.batch_inputs_max:
            if tokens + sizes[end] > engine.batch_tokens_max:
                break
            tokens += sizes[end]
            end += 1
        now_s += engine.fixed_s + engine.per_token_s * tokens
        found.append((slice(begin, end), now_s))
        begin = end
    return found


def drawn(amount: Amount, count: int, random: np.random.Generator) -> Floats:
    sigma = np.sqrt(np.log1p(amount.variance / amount.mean**2))
    return np.minimum(random.lognormal(np.log(amount.mean) - sigma**2 / 2, sigma, count), 2048)


@pytest.mark.parametrize(
    ("engine", "inputs", "tokens", "load", "pods"),
    [
        *((FAST, ONE, TEXTS, load, 2) for load in (0.02, 0.5, 0.8)),
        *((SMALL, ONE, TEXTS, load, 2) for load in (0.1, 0.5, 0.8)),
        *((SMALL, ONE, QUERIES, load, 2) for load in (0.5, 0.8)),
        *((STEEP, ONE, TEXTS, load, 2) for load in (0.2, 0.5, 0.8)),
        *((FAST, FOUR, TEXTS, load, 8) for load in (0.2, 0.8)),
        *((FAST, FOUR, TEXTS, load, 1) for load in (0.2, 0.8)),
    ],
)
def test_latencies_are_those_of_a_simulation(
    engine: EnginePod, inputs: Amount, tokens: Amount, load: float, pods: int
) -> None:
    traffic = traffic_at(load, engine, pods, inputs, tokens)
    predicted_s = engine_tier(engine, traffic, pods).seconds
    run_s = simulated(engine, traffic, pods)
    assert quantile(predicted_s, 0.5) == pytest.approx(np.quantile(run_s, 0.5), rel=0.12)
    assert quantile(predicted_s, 0.99) == pytest.approx(np.quantile(run_s, 0.99), rel=0.15)


@pytest.mark.parametrize(
    ("engine", "tokens", "per_s", "p99_s"),
    [(FAST, TEXTS, 9000, 0.012), (SMALL, TEXTS, 900, 0.1), (SMALL, QUERIES, 5000, 0.05), (STEEP, TEXTS, 4000, 0.02)],
)
def test_the_planned_pods_keep_p99_in_a_simulation(
    engine: EnginePod, tokens: Amount, per_s: float, p99_s: float
) -> None:
    traffic = Traffic(per_s, ONE, tokens)
    plan = plan_pods(traffic, Services(FREE, FREE, engine, 0.0), Goals(p99_s, 0.8, 0.6))
    assert np.quantile(simulated(engine, traffic, plan.engine.pods), 0.99) <= 1.1 * p99_s
    if plan.engine.pods > 1:
        fewer = engine_tier(engine, traffic, plan.engine.pods - 1)
        assert fewer.load > 0.8 or quantile(fewer.seconds, 0.99) > p99_s


@given(st.floats(10, 5000), st.sampled_from([ONE, FOUR]), st.sampled_from([0.06, 0.1, 0.3]))
@settings(max_examples=4, deadline=None)
def test_more_load_never_needs_fewer_pods(per_s: float, inputs: Amount, p99_s: float) -> None:
    services, goals = Services(*COSTS, SMALL, 1e-4), Goals(p99_s, 0.8, 0.6)
    plans = [plan_pods(Traffic(factor * per_s, inputs, TEXTS), services, goals) for factor in (1, 1.1, 2)]
    for less, more in itertools.pairwise(plans):
        assert less.engine.pods <= more.engine.pods
        assert less.gateway.pods <= more.gateway.pods
        assert less.tokenizer.pods <= more.tokenizer.pods
    for plan in plans:
        assert quantile(plan.seconds, 0.99) <= p99_s
        assert max(plan.gateway.load, plan.tokenizer.load) <= 0.6 + 1e-9


@given(st.floats(0.02, 0.8), st.sampled_from([FAST, SMALL, STEEP]), st.sampled_from([TEXTS, QUERIES]))
@settings(max_examples=6, deadline=None)
def test_latency_grows_with_load_and_as_many_tokens_leave_as_arrive(
    load: float, engine: EnginePod, tokens: Amount
) -> None:
    less, more = (engine_tier(engine, traffic_at(share, engine, 3, ONE, tokens), 3) for share in (load, load + 0.1))
    assert less.seconds.mean() < more.seconds.mean()
    assert less.busy <= more.busy + 1e-6
    batches_per_s = less.busy / float(engine.seconds(1, less.batch_tokens))
    leaving_per_s = batches_per_s * less.batch_tokens
    assert leaving_per_s == pytest.approx(load * engine.tokens_per_s_max(tokens), rel=0.01)


@given(st.floats(0.05, 0.6))
@settings(max_examples=6, deadline=None)
def test_a_cpu_pod_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: a wait of load / (1 - load) / 2 services."""
    tier = cpu_tier(CpuCost(1e-3, 0, 0), Traffic(1000 * load, ONE, QUERIES), 0.61)
    assert tier.pods == 1
    assert tier.load == pytest.approx(load)
    assert tier.seconds.mean() == pytest.approx(1e-3 * (1 + load / (1 - load) / 2), rel=0.03)


def test_a_lone_input_takes_its_own_batch() -> None:
    tier = engine_tier(SMALL, Traffic(0.001, ONE, QUERIES), 1)
    assert quantile(tier.seconds, 0.99) == pytest.approx(float(SMALL.seconds(1, 8)), rel=0.01)


def test_the_full_batch_is_the_most_that_fits() -> None:
    assert SMALL.full_batch_tokens(Amount(1500)) == 3000  # not 4096: two whole ones
    assert SMALL.full_batch_tokens(QUERIES) == 64 * 8  # the limit of inputs
    assert SMALL.full_batch_tokens(Amount(5000)) == 5000


@pytest.mark.parametrize(
    ("per_s", "p99_s", "reason"), [(10, 0.02, "keeps p99 below 20 ms"), (1e12, 1, "pods would be")]
)
def test_an_impossible_goal_is_explained(per_s: float, p99_s: float, reason: str) -> None:
    with pytest.raises(ImpossibleError, match=reason):
        plan_pods(Traffic(per_s, ONE, TEXTS), Services(FREE, FREE, SMALL, 0.0), Goals(p99_s, 0.8, 0.6))
