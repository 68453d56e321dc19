"""What the policies know, and what they make of it."""

from collections import Counter

import numpy as np
import pytest

from heddle.planning.balancing import Balancer, Policy, balancer_of
from heddle.rpc.load import OTHERS_DIVISOR


def balancer(policy: Policy, clients: int = 1, pods: int = 4) -> Balancer:
    return balancer_of(policy, clients, pods, np.random.default_rng(0))


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("pods", [1, 2, 7])
def test_every_pod_gets_its_share(policy: Policy, pods: int) -> None:
    chosen = balancer(policy, pods=pods)
    sent = Counter(chosen.send(0, 10) for _ in range(700))
    assert sorted(sent) == list(range(pods))
    assert max(sent.values()) < 1.4 * 700 / pods


def test_round_robin_goes_round() -> None:
    chosen = balancer(Policy.ROUND_ROBIN)
    first = chosen.send(0, 1)
    assert [chosen.send(0, 1) for _ in range(4)] == [(first + step) % 4 for step in (1, 2, 3, 4)]


def test_least_requests_finds_the_pod_that_has_answered() -> None:
    chosen = balancer(Policy.LEAST_REQUESTS)
    sent = [chosen.send(0, 1) for _ in range(4)]
    assert sorted(sent) == [0, 1, 2, 3]
    chosen.answered(0, sent[2], 1)
    assert chosen.send(0, 1) == sent[2]


@pytest.mark.parametrize("policy", [Policy.TWO_CHOICES_REQUESTS, Policy.TWO_CHOICES_TOKENS])
def test_of_two_pods_the_idle_one_is_chosen(policy: Policy) -> None:
    chosen = balancer(policy, pods=2)
    assert {chosen.send(0, 5), chosen.send(0, 5)} == {0, 1}


def test_tokens_are_what_is_weighed() -> None:
    chosen = balancer(Policy.TWO_CHOICES_TOKENS, pods=2)
    long = chosen.send(0, 100)
    assert [chosen.send(0, 5) for _ in range(10)] == [1 - long] * 10


def test_a_report_tells_what_other_clients_sent_and_is_outdated_by_the_next() -> None:
    chosen = balancer(Policy.TWO_CHOICES_TOKENS, clients=2, pods=2)
    chosen.reported(0, 0, OTHERS_DIVISOR * 100)
    assert [chosen.send(0, 5) for _ in range(10)] == [1] * 10
    chosen.reported(0, 0, 0)
    assert chosen.send(0, 5) == 0
