"""Predicts load and latency of gateway, tokenizer and engine pods with queueing formulas. Called by `plan`.

Requests arrive as a Poisson process, and each submission goes to a random pod. Heddle balances better than that, so
its p99 is lower. Latencies are log-normal with the right mean and variance. The tests compare the predictions with a
simulation of random pods: p50 and p99 agree within 20 %.

Gateway and tokenizer pods are M/G/1 queues. A request that has to wait waits for an exponential time with the mean
E[S^2] / (2 E[S] (1 - load)), where S is the service time (Pollaczek and Khinchine; see Allen, Probability, Statistics,
and Queueing Theory, 2nd ed., 1990, chapter 5).

An engine pod runs everything that waits, up to its batch limit, in fixed + per_token * tokens seconds. This is the
model of Inoue, Queueing analysis of GPU-based inference servers with dynamic batching, 2021, arXiv:1912.06322. A
request waits for the rest of the running batch, for full batches that are queued before it, and for its own batch.
"""

import bisect
import math
from dataclasses import dataclass
from statistics import NormalDist

# Defaults of the tokenizer's submission_sequences_max and submission_tokens_max.
SUBMISSION_INPUTS_MAX = 32
SUBMISSION_TOKENS_MAX = 4096
PODS_MAX = 100_000
STEPS = 100  # of fixed points and of bisection


class ImpossibleError(Exception):
    """No number of pods meets the goal. The message says why."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A random number of tokens, inputs or seconds with a log-normal distribution."""

    mean: float
    variance: float = 0.0

    @classmethod
    def with_spread(cls, mean: float, spread: float) -> "Amount":
        """`spread` is standard deviation / mean."""
        return cls(mean, (spread * mean) ** 2)

    @property
    def mean_square(self) -> float:
        return self.variance + self.mean**2

    def __add__(self, other: "Amount") -> "Amount":
        """The sum of two independent amounts."""
        return Amount(self.mean + other.mean, self.variance + other.variance)

    def __mul__(self, factor: float) -> "Amount":
        return Amount(self.mean * factor, self.variance * factor**2)

    def repeated(self, times: "Amount") -> "Amount":
        """The sum of a random number of independent amounts."""
        return Amount(times.mean * self.mean, times.mean * self.variance + times.variance * self.mean**2)

    def share_above(self, limit: float) -> float:
        """The probability that the amount exceeds `limit`."""
        if self.variance <= 0 or limit <= 0:
            return float(self.mean > limit)
        sigma = math.sqrt(math.log1p(self.variance / self.mean**2))
        return 1 - NormalDist().cdf(math.log(limit / self.mean) / sigma + sigma / 2)


def wait_with(probability: float, mean_s: float) -> Amount:
    """An exponential wait that only some requests have."""
    return Amount(probability * mean_s, probability * (2 - probability) * mean_s**2)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of a request: of several cases with their probabilities, and of the slowest of several pods."""

    cases: tuple[tuple[float, Amount], ...]
    pods: float = 1.0

    def __add__(self, delay: Amount) -> "Latency":
        return Latency(tuple((share, seconds + delay) for share, seconds in self.cases), self.pods)

    @property
    def moments(self) -> Amount:
        """Mean and variance at one pod."""
        mean = sum(weight * seconds.mean for weight, seconds in self.cases)
        mean_square = sum(weight * seconds.mean_square for weight, seconds in self.cases)
        return Amount(mean, max(0.0, mean_square - mean**2))

    def quantile(self, share: float) -> float:
        above = 1 - share ** (1 / self.pods)
        low, high = 0.0, max(seconds.mean + 100 * math.sqrt(seconds.variance) for _, seconds in self.cases)
        for _ in range(STEPS):
            middle = (low + high) / 2
            is_enough = sum(weight * seconds.share_above(middle) for weight, seconds in self.cases) <= above
            low, high = (low, middle) if is_enough else (middle, high)
        return high


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
    """CPU seconds that a service spends on a request, both ways."""

    per_request_s: float
    per_input_s: float
    per_token_s: float


@dataclass(frozen=True, slots=True)
class EnginePod:
    fixed_s: float  # of every batch
    per_token_s: float
    batch_tokens_max: int
    batch_inputs_max: int

    def seconds(self, tokens: float) -> float:
        """The time of one batch."""
        return self.fixed_s + self.per_token_s * tokens

    def full_batch_tokens(self, tokens: Amount) -> float:
        """Short inputs fill the space that long ones leave. If all have the same length, that space stays empty."""
        inputs = self.batch_tokens_max / tokens.mean
        if tokens.variance == 0:
            inputs = math.floor(inputs)
        return min(max(inputs, 1), self.batch_inputs_max) * tokens.mean

    def tokens_per_s_max(self, tokens: Amount) -> float:
        full = self.full_batch_tokens(tokens)
        return full / self.seconds(full)


@dataclass(frozen=True, slots=True)
class Tier:
    """The pods of one service."""

    pods: int
    load: float  # share of the maximum throughput
    latency: Latency  # time that a request spends here


@dataclass(frozen=True, slots=True)
class EngineTier(Tier):
    busy: float  # share of the time that a pod computes, in batches of any size
    batch_tokens: float  # average


def plan_cpu_tier(cost: CpuCost, traffic: Traffic, load_max: float) -> Tier:
    tokens = traffic.tokens
    input_s = Amount(cost.per_input_s + cost.per_token_s * tokens.mean, cost.per_token_s**2 * tokens.variance)
    work_s = Amount(cost.per_request_s) + input_s.repeated(traffic.inputs)
    pods = max(1, math.ceil(traffic.requests_per_s * work_s.mean / load_max - 1e-9))
    load = traffic.requests_per_s * work_s.mean / pods
    wait_if_any_s = work_s.mean_square / work_s.mean / 2 / (1 - load) if load else 0
    return Tier(pods, load, Latency(((1.0, work_s + wait_with(load, wait_if_any_s)),)))


def plan_engine_tier(
    engine: EnginePod, traffic: Traffic, outside_s: Amount, *, p99_s: float, load_max: float
) -> EngineTier:
    """Finds the fewest pods. `outside_s` is the time that a request spends elsewhere. Raises ImpossibleError."""

    def predict_p99_s(pods: int) -> float:
        return (predict_engine_tier(engine, traffic, pods).latency + outside_s).quantile(0.99)

    fewest = traffic.tokens_per_s / engine.tokens_per_s_max(traffic.tokens) / load_max
    counts = range(max(1, math.ceil(fewest - 1e-9)), PODS_MAX + 1)
    if not counts:
        raise ImpossibleError(f"the load needs {counts.start:,} engine pods; the most that is planned is {PODS_MAX:,}")
    if (idle_s := predict_p99_s(PODS_MAX)) > p99_s:
        goal = f"keeps p99 below {p99_s * 1000:g} ms"
        raise ImpossibleError(f"no number of engine pods {goal}: on idle pods it is {idle_s * 1000:.3g} ms")
    pods = counts[bisect.bisect_left(counts, True, key=lambda pods: predict_p99_s(pods) <= p99_s)]
    return predict_engine_tier(engine, traffic, pods)


def predict_engine_tier(engine: EnginePod, traffic: Traffic, pods: int) -> EngineTier:
    """The load must be below 1."""
    submission_inputs = min(SUBMISSION_INPUTS_MAX, max(1, SUBMISSION_TOKENS_MAX / traffic.tokens.mean))
    pods_visited = min(max(1, traffic.inputs.mean / submission_inputs), pods)
    visit = traffic.tokens.repeated(traffic.inputs * (1 / pods_visited))  # tokens that a request brings to one pod
    visits_per_s = traffic.requests_per_s * pods_visited / pods
    full = engine.full_batch_tokens(traffic.tokens)
    alone_s = batch_time(engine, visit, full)
    batch_s = alone_s.mean
    for _ in range(STEPS):  # a batch takes the tokens that arrive during the batch before and the idle time after it
        idle_s = math.exp(-visits_per_s * batch_s) / visits_per_s
        batch_tokens = visits_per_s * visit.mean * (batch_s + idle_s)
        batch_s = max(alone_s.mean, engine.seconds(batch_tokens))
    busy = batch_s / (batch_s + idle_s)
    busy_s = latency_if_busy(engine, visit, visits_per_s, batch_tokens=batch_tokens, batch_s=batch_s, full=full)
    load = visits_per_s * visit.mean * engine.seconds(full) / full
    return EngineTier(pods, load, Latency(((busy, busy_s), (1 - busy, alone_s)), pods_visited), busy, batch_tokens)


def latency_if_busy(
    engine: EnginePod, visit: Amount, visits_per_s: float, *, batch_tokens: float, batch_s: float, full: float
) -> Amount:
    """`batch_tokens` and `batch_s` are averages. `full` is the size of a full batch in tokens."""
    full_s = engine.seconds(full)
    tokens_per_s = visits_per_s * visit.mean
    feedback = tokens_per_s * engine.per_token_s  # a long batch follows a long one
    arrived = visits_per_s * batch_s * visit.mean_square / (1 - feedback**2)
    batch = Amount(batch_tokens, max(visit.variance, arrived))
    backlog = visit.mean_square / visit.mean / 2 / (1 - tokens_per_s * full_s / full)  # tokens beyond a full batch
    above = 0.0
    for _ in range(STEPS):
        above = (batch + wait_with(above, backlog)).share_above(full)
    queue_s = wait_with(above, backlog * full_s / full)

    # Arrivals fall into long batches more often: they see the mean E[B^2] / E[B].
    variance_s = engine.per_token_s**2 * batch.variance
    seen_s = min((variance_s + batch_s**2) / batch_s, full_s)
    seen_variance_s = min(variance_s * (seen_s / batch_s) ** 2, (full_s - seen_s) ** 2)
    # An arrival at a random moment waits for the rest of the batch. What arrives during that batch runs with it.
    rest_variance_s = (seen_s**2 + seen_variance_s) / 12 + seen_variance_s * (0.5 + feedback) ** 2
    others_variance_s = engine.per_token_s**2 * visits_per_s * seen_s * visit.mean_square
    rest_s = Amount(seen_s / 2, rest_variance_s + others_variance_s)
    return queue_s + rest_s + batch_time(engine, Amount(tokens_per_s * seen_s) + visit, full)


def batch_time(engine: EnginePod, tokens: Amount, full: float) -> Amount:
    """The time of as many batches as the tokens need."""
    batches = max(1, tokens.mean / full)
    per_token_s = engine.per_token_s if batches == 1 else engine.seconds(full) / full
    return Amount(batches * engine.fixed_s + engine.per_token_s * tokens.mean, per_token_s**2 * tokens.variance)
