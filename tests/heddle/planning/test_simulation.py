"""The simulation against a schedule made by hand, against the engine's scheduler, and against what always holds."""

import time
from collections import deque

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from engine_svc.scheduler import Scheduler, SchedulerLimits
from engine_svc.ticket import Ticket
from heddle.planning.balancing import Policy
from heddle.planning.engine import EngineModel
from heddle.planning.simulation import Arrivals, Cluster, Outcome, Run, simulated
from tests.engine_svc.tickets import computed, passed, ticket
from tests.heddle.planning.shapes import FAST, QUERIES, SEVERAL, SMALL, TEXTS, traffic_at

TIGHT = EngineModel(fixed_s=0.0101, per_token_s=0.001, batch_tokens_max=16, batch_items_max=4)

# When requests come, in milliseconds after the one before, and the tokens of their sequences.
REQUESTS = st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(1, 20), min_size=1, max_size=6)), min_size=1)


def arrivals_of(requests: list[tuple[float, list[int]]], clients: int = 1) -> Arrivals:
    sizes = [len(tokens) for _, tokens in requests]
    return Arrivals(
        times_s=np.cumsum([gap / 1000 for gap, _ in requests]).tolist(),
        clients=[number % clients for number in range(len(requests))],
        first=[0, *np.cumsum(sizes).tolist()],
        tokens=[each for _, tokens in requests for each in tokens],
    )


def run_of(cluster: Cluster, arrivals: Arrivals, policy: Policy = Policy.TWO_CHOICES_TOKENS) -> Outcome:
    run = Run(cluster, arrivals, policy, np.random.default_rng(0), keeps_batches=True)
    return run.until_all_is_answered(lambda share: None)


def test_one_pod_keeps_the_schedule_that_was_made_by_hand() -> None:
    """The first request runs from 1 to 13 ms; both others wait for it, and run together to 27 ms."""
    engine = EngineModel(fixed_s=0.010, per_token_s=0.001, batch_tokens_max=100, batch_items_max=10)
    arrivals = arrivals_of([(0, [2]), (5, [3]), (1, [1])])
    outcome = run_of(Cluster(engine, pods=1, clients=1, network_s=0.001), arrivals)
    assert outcome.latencies_s * 1000 == pytest.approx([14, 23, 22])
    assert [sequences for _, _, sequences in outcome.batches] == [[0], [1, 2]]


@given(REQUESTS)
def test_batches_of_one_pod_are_those_of_the_scheduler(requests: list[tuple[float, list[int]]]) -> None:
    arrivals = arrivals_of(requests)
    outcome = run_of(Cluster(TIGHT, pods=1, clients=1, network_s=0), arrivals)
    simulated_batches = [(start, sorted(sequences)) for start, _, sequences in outcome.batches]
    assert simulated_batches == scheduled(arrivals)


def scheduled(arrivals: Arrivals) -> list[tuple[float, list[int]]]:
    """What one lane takes from the engine's scheduler, when."""
    scheduler = Scheduler(SchedulerLimits(TIGHT.batch_tokens_max, TIGHT.batch_items_max, 10**6, 10**6))
    number_of: dict[Ticket, int] = {}
    waiting = deque(enumerate(arrivals.times_s))

    def arrive() -> None:
        request, _ = waiting.popleft()
        for sequence in range(arrivals.first[request], arrivals.first[request + 1]):
            submitted = ticket(arrivals.tokens[sequence], str(request))
            number_of[submitted] = sequence
            assert scheduler.submit([submitted]) == []

    batches: list[tuple[float, list[int]]] = []
    now = 0.0
    while waiting or scheduler.load().waiting_items:
        if not scheduler.load().waiting_items:
            now = waiting[0][1]  # idle until then
            arrive()
        batch = passed(scheduler, 0)
        batches.append((now, sorted(number_of[each] for each in computed(batch))))
        assert batch is not None
        now += TIGHT.batch_s(batch.tokens)
        while waiting and waiting[0][1] < now:
            arrive()
    return batches


@given(REQUESTS, st.sampled_from(Policy), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=200)
def test_every_sequence_is_computed_once_within_the_budget(
    requests: list[tuple[float, list[int]]], policy: Policy, pods: int, clients: int
) -> None:
    arrivals = arrivals_of(requests, clients)
    outcome = run_of(Cluster(TIGHT, pods, clients, network_s=0.0005), arrivals, policy)
    computed = [sequence for _, _, sequences in outcome.batches for sequence in sequences]
    assert sorted(computed) == list(range(len(arrivals.tokens)))
    for _, _, sequences in outcome.batches:
        tokens = sum(arrivals.tokens[sequence] for sequence in sequences)
        assert tokens <= TIGHT.batch_tokens_max or len(sequences) == 1
        assert len(sequences) <= TIGHT.batch_items_max
    assert np.isfinite(outcome.latencies_s).all()
    assert outcome.latencies_s.min() >= TIGHT.fixed_s + 2 * 0.0005
    assert 0 <= outcome.utilization <= 1 + 1e-9


@given(REQUESTS, st.integers(2, 5))
def test_a_pod_computes_one_batch_at_a_time(requests: list[tuple[float, list[int]]], pods: int) -> None:
    arrivals = arrivals_of(requests)
    free_at = [0.0] * pods
    for start, pod, sequences in run_of(Cluster(TIGHT, pods, 1, 0.0), arrivals).batches:
        assert start >= free_at[pod]
        free_at[pod] = start + TIGHT.batch_s(sum(arrivals.tokens[sequence] for sequence in sequences))


@pytest.mark.parametrize("policy", Policy)
def test_latency_grows_with_load(policy: Policy) -> None:
    cluster = Cluster(SMALL, pods=8, clients=4, network_s=1e-4)
    runs = [
        simulated(cluster, traffic_at(load, SMALL, 8), policy, sequences=20_000) for load in (0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    for share in (0.5, 0.99):
        latencies = [run.latency_s(share) for run in runs]
        assert latencies == sorted(latencies)
    computing = [round(run.utilization, 6) for run in runs]
    assert computing == sorted(computing)


def test_what_is_offered_is_answered() -> None:
    traffic = traffic_at(0.8, FAST, 4, inputs=SEVERAL)
    run = simulated(Cluster(FAST, 4, 4, 1e-4), traffic, Policy.TWO_CHOICES_TOKENS, sequences=100_000)
    assert run.sequences_per_s == pytest.approx(traffic.sequences_per_s, rel=0.03)


def test_pods_that_are_slower_get_less_from_a_policy_that_listens() -> None:
    cluster = Cluster(FAST, pods=20, clients=4, network_s=1e-4, slow_pods=2, slow_factor=3)
    traffic = traffic_at(0.7, FAST, 20, QUERIES)
    deaf, listening = (
        simulated(cluster, traffic, policy, sequences=60_000).latency_s(0.99)
        for policy in (Policy.ROUND_ROBIN, Policy.TWO_CHOICES_TOKENS)
    )
    assert listening < 0.85 * deaf


def test_the_same_seed_gives_the_same_run() -> None:
    cluster, traffic = Cluster(FAST, 3, 2, 1e-4), traffic_at(0.5, FAST, 3)
    first, second = (simulated(cluster, traffic, Policy.RANDOM, sequences=5000, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.latencies_s, second.latencies_s)


@pytest.mark.slow
def test_a_million_sequences_on_a_thousand_pods_take_seconds() -> None:
    began = time.process_time()
    traffic = traffic_at(0.8, FAST, 1000, TEXTS, SEVERAL)
    simulated(Cluster(FAST, 1000, 16, 1e-4), traffic, Policy.TWO_CHOICES_TOKENS, sequences=1_000_000)
    assert time.process_time() - began < 40  # 5 on an idle machine
