"""From a load to a number of pods of each tier, and from these to the latencies to expect. Called by heddle.plan."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heddle.planning.cpu_tier import RequestCost, TierFigures, pods_needed, tier_figures
from heddle.planning.delays import Delays
from heddle.planning.engine import EngineModel
from heddle.planning.queueing import OverloadedError, PodFigures, pod_figures
from heddle.planning.traffic import Floats, Traffic

# More engine pods than that are not searched through: a plan for so many has other questions to answer first.
PODS_MOST = 100_000


class ImpossibleError(Exception):
    """No number of pods does what is asked; says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Goals:
    p99_s: float
    engine_load_max: float  # share of what the pods can do at most: the rest is for peaks and lost pods
    cpu_load_max: float  # of gateway and tokenizer pods


@dataclass(frozen=True, slots=True)
class Tiers:
    gateway: RequestCost
    tokenizer: RequestCost
    engine: EngineModel
    network_s: float  # one way, of each of the two hops between the services


@dataclass(frozen=True, slots=True)
class Plan:
    gateway: TierFigures
    tokenizer: TierFigures
    engine: PodFigures
    engine_pods: int
    engine_latency: Delays  # until all sequences of a request are answered
    latency: Delays  # of a request, from the gateway's socket and back


def planned(traffic: Traffic, tiers: Tiers, goals: Goals, progress: Callable[[str], None] = lambda text: None) -> Plan:
    """The fewest pods that keep the goals. Raises ImpossibleError."""
    fewest = traffic.tokens_per_s / tiers.engine.tokens_per_s_max(traffic.tokens) / goals.engine_load_max
    least = max(1, math.ceil(fewest - 1e-9))
    if least > PODS_MOST:
        raise ImpossibleError(f"{least} engine pods would be needed; this plans for {PODS_MOST} at most")
    refuse_what_is_impossible(traffic, tiers, goals)
    pods, step = least, 1
    missed: int | None = None
    while (plan := plan_with(traffic, tiers, goals, pods)) is None or plan.latency.quantile_s(0.99) > goals.p99_s:
        progress(f"{pods} engine pods are too few")
        if pods >= PODS_MOST:
            raise ImpossibleError(f"{PODS_MOST} engine pods do not keep p99 below {goals.p99_s * 1000:g} ms")
        missed, pods, step = pods, min(pods + step, PODS_MOST), 2 * step
    while missed is not None and pods - missed > max(1, pods // 200):
        middle = (missed + pods) // 2
        progress(f"between {missed} and {pods} engine pods")
        better = plan_with(traffic, tiers, goals, middle)
        if better is None or better.latency.quantile_s(0.99) > goals.p99_s:
            missed = middle
        else:
            pods, plan = middle, better
    return plan


def plan_with(traffic: Traffic, tiers: Tiers, goals: Goals, engine_pods: int) -> Plan | None:
    """With so many engine pods; None if they are overloaded."""
    gateway = tier_figures(tiers.gateway, traffic, pods_needed(tiers.gateway, traffic, goals.cpu_load_max))
    tokenizer = tier_figures(tiers.tokenizer, traffic, pods_needed(tiers.tokenizer, traffic, goals.cpu_load_max))
    try:
        engine = pod_figures(tiers.engine, traffic, engine_pods)
    except OverloadedError:
        return None
    slowest = engine.latency.slowest_of(pods_visited(traffic, engine_pods))
    latency = gateway.latency.plus(tokenizer.latency).plus(slowest).plus(Delays.always(4 * tiers.network_s))
    return Plan(gateway, tokenizer, engine, engine_pods, slowest, latency)


def pods_visited(traffic: Traffic, pods: int) -> Floats:
    """How likely it is that a request's sequences, each with a pod drawn at random, have 0, 1, 2, … pods. Each number
    of sequences is taken to have its mean number of pods, or its two neighbours."""
    probabilities = traffic.inputs.probabilities
    visited = pods * -np.expm1(np.arange(probabilities.size) * math.log1p(-1 / pods)) if pods > 1 else None
    if visited is None:
        return np.array([0.0, 1.0])
    lower = np.floor(visited + 1e-9).astype(int)
    shares = np.zeros(lower[-1] + 2)
    np.add.at(shares, lower, probabilities * (1 - (visited - lower)))
    np.add.at(shares, lower + 1, probabilities * (visited - lower))
    return np.maximum(shares, 0)


def refuse_what_is_impossible(traffic: Traffic, tiers: Tiers, goals: Goals) -> None:
    """A long text takes its time even on an idle pod."""
    alone_s = 4 * tiers.network_s + tiers.engine.batch_s(traffic.tokens.quantile(0.99))
    alone_s += tiers.gateway.mean_s(traffic) + tiers.tokenizer.mean_s(traffic)
    if alone_s > goals.p99_s:
        longest = traffic.tokens.quantile(0.99)
        raise ImpossibleError(
            f"no number of pods keeps p99 below {goals.p99_s * 1000:g} ms: a text of {longest} tokens (one in a "
            f"hundred has more) takes {alone_s * 1000:.3g} ms on idle ones"
        )
