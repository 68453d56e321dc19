"""Gateway and tokenizer pods: how many a load needs, and how long a request is with them. Used by capacity.py.

A pod is one queue with one server (its event loop), which a request keeps busy for as long as its CPU time: M/G/1. Its
wait has the mean of Pollaczek and Khinchine, and is taken to be exponential where there is one at all (exact for M/M/1;
requests differ less than that mostly, so it is on the safe side). See any textbook, such as Kleinrock, Queueing Systems
I, 1975, chapter 5. CPU time per request falls with load, as more share a frame: what is measured at load is right where
it matters.
"""

import math
from dataclasses import dataclass

import numpy as np

from heddle.planning.delays import SHARES, Delays
from heddle.planning.traffic import Traffic


@dataclass(frozen=True, slots=True)
class RequestCost:
    """CPU seconds of one service for one request, there and back."""

    per_request_s: float
    per_input_s: float
    per_token_s: float

    def mean_s(self, traffic: Traffic) -> float:
        per_input_s = self.per_input_s + self.per_token_s * traffic.tokens.average
        return self.per_request_s + per_input_s * traffic.inputs.average

    def variance_s2(self, traffic: Traffic) -> float:
        per_input_s = self.per_input_s + self.per_token_s * traffic.tokens.average
        of_an_input = self.per_token_s**2 * traffic.tokens.variance
        return per_input_s**2 * traffic.inputs.variance + of_an_input * traffic.inputs.average


@dataclass(frozen=True, slots=True)
class TierFigures:
    pods: int
    load: float  # share of the time that a pod computes
    latency: Delays


def pods_needed(cost: RequestCost, traffic: Traffic, load_max: float) -> int:
    return max(1, math.ceil(traffic.requests_per_s * cost.mean_s(traffic) / load_max - 1e-9))


def tier_figures(cost: RequestCost, traffic: Traffic, pods: int) -> TierFigures:
    """The load must be smaller than 1."""
    mean_s, variance_s2 = cost.mean_s(traffic), cost.variance_s2(traffic)
    load = traffic.requests_per_s * mean_s / pods
    if mean_s == 0:
        return TierFigures(pods, 0.0, Delays.always(0.0))
    wait_s = load / (1 - load) * (mean_s + variance_s2 / mean_s) / 2
    waits = np.maximum(0.0, wait_s / load * np.log(load / (1 - SHARES)))
    return TierFigures(pods, load, Delays(waits).plus(log_normal(mean_s, variance_s2)))


def log_normal(mean_s: float, variance_s2: float) -> Delays:
    """Of that mean and variance."""
    if variance_s2 <= 0:
        return Delays.always(mean_s)
    deviation = math.sqrt(math.log1p(variance_s2 / mean_s**2))
    normal = np.random.default_rng(0).standard_normal(100 * SHARES.size)
    values = np.exp(math.log(mean_s) - deviation**2 / 2 + deviation * np.quantile(normal, SHARES))
    return Delays(values)
