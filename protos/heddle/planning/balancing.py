"""Which engine pod gets a sequence: the policies that the simulation compares. Used by heddle.planning.simulation.

Every client (a tokenizer pod) decides alone, from what it knows: what it sent itself and has no answer for, and what a
pod last reported. A report travels with answers, so a client hears only of pods that it sent something to, and late.
"""

import enum
from collections.abc import Callable
from typing import Protocol

import numpy as np

from heddle.rpc.load import estimated_load


class Policy(enum.StrEnum):
    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    LEAST_REQUESTS = "least-requests"
    TWO_CHOICES_REQUESTS = "two-choices-requests"
    TWO_CHOICES_OWN_TOKENS = "two-choices-own-tokens"
    TWO_CHOICES_TOKENS = "two-choices-tokens"  # heddle.rpc.pool's


class Balancer(Protocol):
    def send(self, client: int, tokens: int) -> int:
        """The pod that gets a sequence of so many tokens, which is taken to be sent."""

    def answered(self, client: int, pod: int, tokens: int) -> None:
        """A sequence that `send` gave to the pod."""

    def reported(self, client: int, pod: int, tokens: int) -> None:
        """All that waits and runs at the pod, as the client hears it."""


def balancer_of(policy: Policy, clients: int, pods: int, random: np.random.Generator) -> Balancer:
    return CLASSES[policy](clients, pods, random)


class Draws:
    """Random numbers in [0, 1), made many at a time: one costs a tenth of a call of NumPy's."""

    MADE_AT_ONCE = 65_536

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._left: list[float] = []

    def next(self) -> float:
        if not self._left:
            self._left = self._random.random(self.MADE_AT_ONCE).tolist()
        return self._left.pop()


class Blind:
    """Base of those that do not listen."""

    def answered(self, client: int, pod: int, tokens: int) -> None:
        pass

    def reported(self, client: int, pod: int, tokens: int) -> None:
        pass


class RoundRobin(Blind):
    """Each client goes its own round, from a pod of its own."""

    def __init__(self, clients: int, pods: int, random: np.random.Generator) -> None:
        self._pods = pods
        self._next: list[int] = random.integers(0, pods, clients).tolist()

    def send(self, client: int, tokens: int) -> int:
        pod = self._next[client]
        self._next[client] = pod + 1 if pod + 1 < self._pods else 0
        return pod


class Random(Blind):
    def __init__(self, clients: int, pods: int, random: np.random.Generator) -> None:
        self._pods = pods
        self._draws = Draws(random)

    def send(self, client: int, tokens: int) -> int:
        return int(self._draws.next() * self._pods)


class LeastRequests:
    """The pod with the fewest unanswered sequences of this client; of several, the next in its round."""

    def __init__(self, clients: int, pods: int, random: np.random.Generator) -> None:
        self._pods = pods
        # Twice side by side, so that a round from any pod is one slice.
        self._unanswered = np.zeros((clients, 2 * pods), np.int32)
        self._next: list[int] = random.integers(0, pods, clients).tolist()

    def send(self, client: int, tokens: int) -> int:
        start = self._next[client]
        unanswered = self._unanswered[client]
        pod = (start + int(unanswered[start : start + self._pods].argmin())) % self._pods
        self._next[client] = (pod + 1) % self._pods
        unanswered[pod] += 1
        unanswered[pod + self._pods] += 1
        return pod

    def answered(self, client: int, pod: int, tokens: int) -> None:
        self._unanswered[client, pod] -= 1
        self._unanswered[client, pod + self._pods] -= 1

    def reported(self, client: int, pod: int, tokens: int) -> None:
        pass


class TwoChoicesOwnTokens:
    """Of two pods drawn at random, the one with fewer unanswered tokens of this client."""

    def __init__(self, clients: int, pods: int, random: np.random.Generator) -> None:
        self._pods = pods
        self._draws = Draws(random)
        self._unanswered = [[0] * pods for _ in range(clients)]

    def send(self, client: int, tokens: int) -> int:
        unanswered = self._unanswered[client]
        first, second = two_of(self._pods, self._draws)
        pod = first if unanswered[first] <= unanswered[second] else second
        unanswered[pod] += tokens
        return pod

    def answered(self, client: int, pod: int, tokens: int) -> None:
        self._unanswered[client][pod] -= tokens

    def reported(self, client: int, pod: int, tokens: int) -> None:
        pass


class TwoChoicesRequests(TwoChoicesOwnTokens):
    """Of two pods drawn at random, the one with fewer unanswered sequences of this client."""

    def send(self, client: int, tokens: int) -> int:
        return super().send(client, 1)

    def answered(self, client: int, pod: int, tokens: int) -> None:
        super().answered(client, pod, 1)


class TwoChoicesTokens:
    """Of two pods drawn at random, the one with fewer tokens ahead: what this client has there unanswered, and a part
    of what others have there by its last report. As heddle.rpc.pod estimates it."""

    def __init__(self, clients: int, pods: int, random: np.random.Generator) -> None:
        self._pods = pods
        self._draws = Draws(random)
        self._unanswered = [[0] * pods for _ in range(clients)]
        self._reported = [[0] * pods for _ in range(clients)]  # and sent since

    def send(self, client: int, tokens: int) -> int:
        unanswered, reported = self._unanswered[client], self._reported[client]
        first, second = two_of(self._pods, self._draws)
        load_of_first = estimated_load(unanswered[first], reported[first])
        load_of_second = estimated_load(unanswered[second], reported[second])
        pod = first if load_of_first <= load_of_second else second
        unanswered[pod] += tokens
        reported[pod] += tokens
        return pod

    def answered(self, client: int, pod: int, tokens: int) -> None:
        self._unanswered[client][pod] -= tokens

    def reported(self, client: int, pod: int, tokens: int) -> None:
        self._reported[client][pod] = tokens


def two_of(pods: int, draws: Draws) -> tuple[int, int]:
    """Different ones, where there are two."""
    first = int(draws.next() * pods)
    second = first + 1 + int(draws.next() * (pods - 1))
    return first, second if second < pods else second - pods


CLASSES: dict[Policy, Callable[[int, int, np.random.Generator], Balancer]] = {
    Policy.ROUND_ROBIN: RoundRobin,
    Policy.RANDOM: Random,
    Policy.LEAST_REQUESTS: LeastRequests,
    Policy.TWO_CHOICES_REQUESTS: TwoChoicesRequests,
    Policy.TWO_CHOICES_OWN_TOKENS: TwoChoicesOwnTokens,
    Policy.TWO_CHOICES_TOKENS: TwoChoicesTokens,
}
