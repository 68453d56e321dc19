"""The queueing formulas of `heddle plan`, compared with a simulation of the same queues and with what holds for any."""

import itertools

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from heddle.cli.capacity import (
    SUBMISSION_INPUTS_MAX,
    SUBMISSION_TOKENS_MAX,
    Amount,
    CpuCost,
    EnginePod,
    ImpossibleError,
    Traffic,
    plan_cpu_tier,
    plan_engine_tier,
    predict_engine_tier,
)
from tokenizer_svc.settings import TokenizerSettings

Floats = npt.NDArray[np.float64]

FAST = EnginePod(2e-3, 1e-6, 16_384, 1024)
SMALL = EnginePod(20e-3, 20e-6, 4096, 64)
STEEP = EnginePod(1e-3, 4e-6, 16_384, 1024)  # the tokens take nearly all of a batch's time

ONE, FOUR, TWENTY, HUNDRED = map(Amount, (1, 4, 20, 100))
TEXTS = Amount.with_spread(128, 0.8)
QUERIES = Amount(8)
NOTHING = Amount(0)


def traffic_at(load: float, engine: EnginePod, pods: int, inputs: Amount, tokens: Amount) -> Traffic:
    per_s = load * pods * engine.tokens_per_s_max(tokens)
    return Traffic(per_s / (inputs.mean * tokens.mean), inputs, tokens)


def simulate(engine: EnginePod, traffic: Traffic, pods: int) -> Floats:
    """Latencies of requests whose submissions go to random pods, each of which runs what waits in order of arrival."""
    random = np.random.default_rng(7)
    inputs = round(traffic.inputs.mean)
    requests = 160_000 // max(4, inputs)
    arrivals = np.cumsum(random.exponential(1 / traffic.requests_per_s, requests))
    request_of = np.repeat(np.arange(requests), inputs)
    sizes = draw(traffic.tokens, request_of.size, random)
    submissions = -(-inputs // SUBMISSION_INPUTS_MAX)
    submission_of = np.tile(np.arange(inputs) * submissions // inputs, requests)
    pod_of = random.integers(0, pods, (requests, submissions))[request_of, submission_of]
    answered = np.zeros(requests)
    for pod in range(pods):
        mine = np.flatnonzero(pod_of == pod)
        for batch, end_s in run_batches(engine, arrivals[request_of[mine]].tolist(), sizes[mine].tolist()):
            done = request_of[mine[batch]]
            answered[done] = np.maximum(answered[done], end_s)
    return (answered - arrivals)[requests // 10 :]


def run_batches(engine: EnginePod, times: list[float], sizes: list[float]) -> list[tuple[slice, float]]:
    """The inputs of each batch of one pod, and when it ends."""
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
        now_s += engine.seconds(tokens)
        found.append((slice(begin, end), now_s))
        begin = end
    return found


def draw(amount: Amount, count: int, random: np.random.Generator) -> Floats:
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
        *((FAST, HUNDRED, QUERIES, load, 8) for load in (0.2, 0.8)),
        # One request fills a third of a batch.
        *((SMALL, TWENTY, QUERIES, load, 4) for load in (0.2, 0.8)),
    ],
)
def test_latencies_are_those_of_a_simulation(
    engine: EnginePod, inputs: Amount, tokens: Amount, load: float, pods: int
) -> None:
    traffic = traffic_at(load, engine, pods, inputs, tokens)
    predicted = predict_engine_tier(engine, traffic, pods).latency
    simulated_s = simulate(engine, traffic, pods)
    assert predicted.quantile(0.5) == pytest.approx(np.quantile(simulated_s, 0.5), rel=0.1)
    assert predicted.quantile(0.99) == pytest.approx(np.quantile(simulated_s, 0.99), rel=0.2)


def test_the_size_of_submissions_is_that_of_the_tokenizer() -> None:
    assert TokenizerSettings.submission_sequences_max == SUBMISSION_INPUTS_MAX
    assert TokenizerSettings.submission_tokens_max == SUBMISSION_TOKENS_MAX


@pytest.mark.parametrize(
    ("engine", "tokens", "per_s", "p99_s"),
    [(FAST, TEXTS, 9000, 0.012), (SMALL, TEXTS, 900, 0.1), (SMALL, QUERIES, 5000, 0.05), (STEEP, TEXTS, 4000, 0.02)],
)
def test_the_planned_pods_keep_p99_in_a_simulation(
    engine: EnginePod, tokens: Amount, per_s: float, p99_s: float
) -> None:
    traffic = Traffic(per_s, ONE, tokens)
    planned = plan_engine_tier(engine, traffic, NOTHING, p99_s=p99_s, load_max=0.8)
    assert np.quantile(simulate(engine, traffic, planned.pods), 0.99) <= 1.1 * p99_s
    if planned.pods > 1:
        fewer = predict_engine_tier(engine, traffic, planned.pods - 1)
        assert fewer.load > 0.8 or fewer.latency.quantile(0.99) > p99_s


@given(st.floats(10, 5000), st.sampled_from([ONE, FOUR]), st.sampled_from([0.06, 0.1, 0.3]))
@settings(max_examples=10, deadline=None)
def test_more_load_never_needs_fewer_pods(per_s: float, inputs: Amount, p99_s: float) -> None:
    traffics = [Traffic(factor * per_s, inputs, TEXTS) for factor in (1, 1.1, 2)]
    engines = [plan_engine_tier(SMALL, traffic, NOTHING, p99_s=p99_s, load_max=0.8) for traffic in traffics]
    tokenizers = [plan_cpu_tier(CpuCost(1e-4, 5e-5, 1e-6), traffic, 0.6) for traffic in traffics]
    for tiers in (engines, tokenizers):
        assert all(less.pods <= more.pods for less, more in itertools.pairwise(tiers))
    assert all(tier.latency.quantile(0.99) <= p99_s for tier in engines)
    assert all(tier.load <= 0.6 + 1e-9 for tier in tokenizers)


@given(st.floats(0.02, 0.8), st.sampled_from([FAST, SMALL, STEEP]), st.sampled_from([TEXTS, QUERIES]))
@settings(max_examples=20, deadline=None)
def test_latency_grows_with_load_and_as_many_tokens_leave_as_arrive(
    load: float, engine: EnginePod, tokens: Amount
) -> None:
    less, more = (
        predict_engine_tier(engine, traffic_at(share, engine, 3, ONE, tokens), 3) for share in (load, load + 0.1)
    )
    assert less.latency.moments.mean < more.latency.moments.mean
    assert less.busy <= more.busy + 1e-6
    batches_per_s = less.busy / engine.seconds(less.batch_tokens)
    assert batches_per_s * less.batch_tokens == pytest.approx(load * engine.tokens_per_s_max(tokens), rel=0.01)


@given(st.floats(0.05, 0.6))
@settings(max_examples=20, deadline=None)
def test_a_cpu_pod_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: a wait of load / (1 - load) / 2 services."""
    tier = plan_cpu_tier(CpuCost(1e-3, 0, 0), Traffic(1000 * load, ONE, QUERIES), 0.61)
    assert tier.pods == 1
    assert tier.load == pytest.approx(load)
    assert tier.latency.moments.mean == pytest.approx(1e-3 * (1 + load / (1 - load) / 2))


def test_a_lone_input_takes_its_own_batch() -> None:
    tier = predict_engine_tier(SMALL, Traffic(0.001, ONE, QUERIES), 1)
    assert tier.latency.quantile(0.99) == pytest.approx(SMALL.seconds(8), rel=0.01)


def test_the_full_batch_is_the_most_that_fits() -> None:
    assert SMALL.full_batch_tokens(Amount(1500)) == 3000  # two whole inputs, not 4096 tokens
    assert SMALL.full_batch_tokens(QUERIES) == 64 * 8  # the limit of inputs
    assert SMALL.full_batch_tokens(Amount(5000)) == 5000


@pytest.mark.parametrize(
    ("per_s", "p99_s", "reason"), [(10, 0.02, "keeps p99 below 20 ms"), (1e12, 1, "the load needs .* engine pods")]
)
def test_an_impossible_goal_is_explained(per_s: float, p99_s: float, reason: str) -> None:
    with pytest.raises(ImpossibleError, match=reason):
        plan_engine_tier(SMALL, Traffic(per_s, ONE, TEXTS), NOTHING, p99_s=p99_s, load_max=0.8)
