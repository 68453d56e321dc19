"""Predicts load and latency of gateway, tokenizer and engine pods with queueing formulas. Called by `plan`.

Requests are a Poisson process, and every submission goes to a random pod. Heddle balances better than that, so p99 is
on the safe side. A simulation of random pods agrees within 15 % (see the tests), unless single requests fill whole
batches: p99 is then up to 40 % too low for random pods, and still above that of Heddle's balancing.

Gateway and tokenizer pods are M/G/1 queues: the mean wait is load / (1 - load) * (1 + cv^2) / 2 * mean (Pollaczek and
Khinchine; Allen and Cunneen's formula for one server; cv is standard deviation / mean). The wait is exponential, given
that there is one. See Allen, Probability, Statistics, and Queueing Theory, 2nd ed., 1990, chapter 5.

An engine pod runs everything that waits, up to its batch limit, in fixed + per_token * tokens: the model of Inoue,
Queueing analysis of GPU-based inference servers with dynamic batching, 2021, arXiv:1912.06322. Here sizes are
log-normal with the right mean and variance, and an arrival waits for the rest of the running batch (it sees what the
pod does on average over time), for full batches ahead of it, and for its own batch. What exceeds a batch is exponential
with the mean of an M/G/1 queue. Work that has to queue is stretched by 1 / (1 - load), as under processor sharing,
because callers take turns.
"""

import bisect
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Inputs that the tokenizer sends to one engine pod together.
SUBMISSION_INPUTS_MAX = 1
PODS_MAX = 100_000
# A distribution is this many equally likely values, sorted.
POINTS = 200
FIXED_POINT_STEPS = 300


class ImpossibleError(Exception):
    """No number of pods meets the goal; the message says why."""


def shares(points: int) -> Floats:
    return np.asarray((np.arange(points) + 0.5) / points)


@dataclass(frozen=True, slots=True)
class Amount:
    """A random number of tokens, inputs or seconds: log-normal with this mean and variance."""

    mean: float
    variance: float = 0.0

    @classmethod
    def with_spread(cls, mean: float, spread: float) -> "Amount":
        """`spread` is standard deviation / mean."""
        return cls(mean, (spread * mean) ** 2)

    def repeated(self, times: "Amount") -> "Amount":
        """The sum of a random number of independent ones."""
        variance = times.mean * self.variance + times.variance * self.mean**2
        return Amount(times.mean * self.mean, variance)

    @property
    def mean_square(self) -> float:
        return self.variance + self.mean**2

    def values(self, points: int) -> Floats:
        return log_normal(np.array(self.mean), np.array(self.variance), points)

    def share_above(self, limit: float) -> float:
        if self.variance <= 0:
            return float(self.mean > limit)
        sigma = math.sqrt(math.log1p(self.variance / self.mean**2))
        return 1 - NormalDist().cdf(math.log(limit / self.mean) / sigma + sigma / 2)


def log_normal(mean: Floats, variance: Floats, points: int) -> Floats:
    """The values lie along the last axis, which is new."""
    normal = np.array([NormalDist().inv_cdf(share) for share in shares(points)])
    sigma = np.sqrt(np.log1p(variance / mean**2))[..., None]
    return np.asarray(mean[..., None] * np.exp(sigma * normal - sigma**2 / 2))


def quantile(seconds: Floats, share: float) -> float:
    return float(np.interp(share, shares(POINTS), seconds))


def added(first: Floats, second: Floats) -> Floats:
    """The distribution of the sum of two independent delays."""
    return np.sort(np.add.outer(first, second), axis=None)[POINTS // 2 :: POINTS]


@dataclass(frozen=True, slots=True)
class Traffic:
    requests_per_s: float
    inputs: Amount  # of a request
    tokens: Amount  # of an input

    @property
    def tokens_per_s(self) -> float:
        return self.requests_per_s * self.inputs.mean * self.tokens.mean


@dataclass(frozen=True, slots=True)
class CpuCost:
    """CPU time that one service spends on a request, in both directions."""

    per_request_s: float
    per_input_s: float
    per_token_s: float

    def of_request(self, traffic: Traffic) -> Amount:
        tokens = traffic.tokens
        one = Amount(self.per_input_s + self.per_token_s * tokens.mean, self.per_token_s**2 * tokens.variance)
        inputs = one.repeated(traffic.inputs)
        return Amount(self.per_request_s + inputs.mean, inputs.variance)


@dataclass(frozen=True, slots=True)
class EnginePod:
    fixed_s: float  # of every batch
    per_token_s: float
    batch_tokens_max: int
    batch_inputs_max: int

    def seconds(self, batches: Floats | float, tokens: Floats | float) -> Floats:
        return np.asarray(self.fixed_s * np.asarray(batches) + self.per_token_s * np.asarray(tokens))

    def full_batch_tokens(self, tokens: Amount) -> float:
        """Short inputs fill what long ones leave. If all have the same length, the rest of the batch stays empty."""
        inputs = self.batch_tokens_max / tokens.mean
        if tokens.variance == 0:
            inputs = math.floor(inputs)
        return min(max(inputs, 1), self.batch_inputs_max) * tokens.mean

    def tokens_per_s_max(self, tokens: Amount) -> float:
        full = self.full_batch_tokens(tokens)
        return full / (self.fixed_s + self.per_token_s * full)


@dataclass(frozen=True, slots=True)
class Tier:
    """The pods of one service."""

    pods: int
    load: float  # share of the maximum throughput
    seconds: Floats  # POINTS values: what a request spends here


@dataclass(frozen=True, slots=True)
class EngineTier(Tier):
    busy: float  # share of the time that a pod computes, even if only small batches
    batch_tokens: float  # average


@dataclass(frozen=True, slots=True)
class Services:
    gateway: CpuCost
    tokenizer: CpuCost
    engine: EnginePod
    network_s: float  # from one service to the next, one way


@dataclass(frozen=True, slots=True)
class Goals:
    p99_s: float
    engine_load_max: float
    cpu_load_max: float


@dataclass(frozen=True, slots=True)
class Plan:
    gateway: Tier
    tokenizer: Tier
    engine: EngineTier
    seconds: Floats  # POINTS values: a request's latency


def plan_pods(traffic: Traffic, services: Services, goals: Goals) -> Plan:
    """The fewest pods that meet the goals. Raises ImpossibleError."""
    gateway = cpu_tier(services.gateway, traffic, goals.cpu_load_max)
    tokenizer = cpu_tier(services.tokenizer, traffic, goals.cpu_load_max)
    before_s = added(gateway.seconds, tokenizer.seconds) + 4 * services.network_s

    def plan_with(pods: int) -> Plan:
        engine = engine_tier(services.engine, traffic, pods)
        return Plan(gateway, tokenizer, engine, added(before_s, engine.seconds))

    def p99_s(pods: int) -> float:
        return quantile(plan_with(pods).seconds, 0.99)

    fewest = traffic.tokens_per_s / services.engine.tokens_per_s_max(traffic.tokens) / goals.engine_load_max
    counts = range(max(1, math.ceil(fewest - 1e-9)), PODS_MAX + 1)
    if not counts:
        raise ImpossibleError(f"{counts.start:,} engine pods would be needed; {PODS_MAX:,} is the most that is planned")
    if (idle_s := p99_s(PODS_MAX)) > goals.p99_s:
        goal = f"keeps p99 below {goals.p99_s * 1000:g} ms"
        raise ImpossibleError(f"no number of engine pods {goal}: on idle ones it is {idle_s * 1000:.3g} ms")
    return plan_with(counts[bisect.bisect_left(counts, True, key=lambda pods: p99_s(pods) <= goals.p99_s)])


def cpu_tier(cost: CpuCost, traffic: Traffic, load_max: float) -> Tier:
    work = cost.of_request(traffic)
    pods = max(1, math.ceil(traffic.requests_per_s * work.mean / load_max - 1e-9))
    load = traffic.requests_per_s * work.mean / pods
    if load == 0:
        return Tier(pods, load, np.zeros(POINTS))
    wait_if_any_s = work.mean_square / work.mean / 2 / (1 - load)
    waits = wait_if_any_s * np.log(np.maximum(1, load / (1 - shares(POINTS))))
    return Tier(pods, load, added(waits, work.values(POINTS)))


def engine_tier(engine: EnginePod, traffic: Traffic, pods: int) -> EngineTier:
    """The load must be below 1."""
    pods_visited, visit = visit_of(traffic, pods)
    load = traffic.tokens_per_s / pods / engine.tokens_per_s_max(traffic.tokens)
    queue = BatchQueue(
        engine, engine.full_batch_tokens(traffic.tokens), load, traffic.requests_per_s * pods_visited / pods, visit
    )
    return EngineTier(pods, load, queue.slowest_of(pods_visited), queue.busy, queue.batch.mean)


def visit_of(traffic: Traffic, pods: int) -> tuple[float, Amount]:
    """Pods that a request visits on average, and the tokens that it brings to each."""
    submissions = max(1.0, traffic.inputs.mean / SUBMISSION_INPUTS_MAX)
    size, number = traffic.inputs, Amount(1.0)
    if submissions > 1:
        size = Amount(traffic.inputs.mean / submissions)
        number = Amount(submissions, traffic.inputs.variance * (submissions / traffic.inputs.mean) ** 2)
    visited = -pods * math.expm1(submissions * math.log1p(-1 / pods)) if pods > 1 else 1.0
    # The submissions that one pod gets, given that it gets any.
    at_pod = Amount(1 / pods, (1 - 1 / pods) / pods).repeated(number)
    mean, mean_square = at_pod.mean * pods / visited, at_pod.mean_square * pods / visited
    at_pod = Amount(mean, max(0.0, mean_square - mean**2))
    return visited, traffic.tokens.repeated(size).repeated(at_pod)


class BatchQueue:
    """One engine pod. A visit is all the work that one request brings to it."""

    def __init__(self, engine: EnginePod, full: float, load: float, visits_per_s: float, visit: Amount) -> None:
        self._engine, self._full, self._load, self._visits_per_s, self._visit = engine, full, load, visits_per_s, visit
        self._tokens_per_s = visits_per_s * visit.mean
        own = visit.values(POINTS)
        alone_s = engine.seconds(np.ceil(own / full), own)
        batch_s = shortest_s = float(alone_s.mean())
        for _ in range(FIXED_POINT_STEPS):  # as many tokens in a batch as arrive in it and the idle time after it
            idle_s = math.exp(-visits_per_s * batch_s) / visits_per_s
            tokens = self._tokens_per_s * (batch_s + idle_s)
            batch_s = max(shortest_s, float(engine.seconds(1, tokens)))
        self.busy = batch_s / (batch_s + idle_s)
        arrived = visits_per_s * batch_s * visit.mean_square
        echo = (self._tokens_per_s * engine.per_token_s) ** 2  # a long batch follows a long one
        self.batch = Amount(tokens, max(visit.variance, arrived / (1 - echo)))
        self._alone_s = alone_s + self._stretch * np.maximum(alone_s - engine.seconds(1, full), 0)

    def slowest_of(self, pods: float) -> Floats:
        """The time until so many pods, independent of each other, have answered."""
        latencies_s, weights = self._latencies_if_busy()
        seconds = np.concatenate([latencies_s, self._alone_s])
        idle = (1 - self.busy) / POINTS
        order = np.argsort(seconds)
        below = np.cumsum(np.concatenate([self.busy * weights, np.full(POINTS, idle)])[order])
        return np.asarray(seconds[order][np.searchsorted(below, shares(POINTS) ** (1 / pods) * below[-1])])

    def _latencies_if_busy(self) -> tuple[Floats, Floats]:
        """Latencies and their weights, over four axes: what waited when the running batch began, when a visit comes
        within that batch, what others bring during it, and the size of the visit."""
        full, engine = self._full, self._engine
        waited = self._waited()
        running_s = engine.seconds(1, np.minimum(waited, full))
        others = log_normal(
            self._tokens_per_s * running_s, self._visits_per_s * running_s * self._visit.mean_square, 16
        )
        left, running_s = np.maximum(waited - full, 0)[:, None, None, None], running_s[:, None, None, None]
        others, moment, own = others[:, None, :, None], shares(8)[:, None, None], self._visit.values(16)
        queued = left + others + own
        ahead = left + moment * others + own * (1 + self._stretch)
        batches = np.where(queued <= full, 1, np.ceil(ahead / full))
        arriving = (batches - 1) * self._tokens_per_s * engine.seconds(1, full)
        answered_s = engine.seconds(batches, np.minimum(queued + arriving, batches * full))
        latencies_s = (1 - moment) * running_s + answered_s
        weights = np.broadcast_to(running_s, latencies_s.shape)  # an arrival meets long batches more often
        return latencies_s.ravel(), weights.ravel() / weights.sum()

    def _waited(self) -> Floats:
        """Tokens that wait when a batch begins: equally likely values."""
        at, above = shares(40), self.batch.share_above(self._full)
        excess = self._visit.mean_square / self._visit.mean / 2 / (1 - self._load)
        beyond = self._full + excess * np.log(np.maximum(1, above / (1 - at)))
        return np.where(at > 1 - above, beyond, self.batch.values(at.size))

    @property
    def _stretch(self) -> float:
        return self._load / (1 - self._load)
