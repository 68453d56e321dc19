"""One engine pod as a queue: how long a visit takes, from a request's sequences arriving to the end of their batch.

A server that takes everything that waits, up to a budget, and serves it in fixed + per_token * tokens: the model of
Y. Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching: a closed-form characterization",
Performance Evaluation 147 (2021), arXiv:1912.06322, with a budget in tokens, and with requests that bring several
sequences of different lengths. Called by heddle.planning.capacity.

What waits when a batch ends is a Markov chain: it takes up to the budget of it, and while that is computed a compound
Poisson number of tokens arrives. The chain is solved on a grid of at most GRID steps. An arrival finds the pod idle, or
somewhere within a batch, as often as the pod spends time there (PASTA), and then waits for the rest of that batch, for
whole batches ahead of it, and for its own.

Assumed:
* Requests are a Poisson process, and each sequence goes to a pod drawn at random. Better balancing brings pods a
  steadier stream: near the limit a real cluster is quicker than this says.
* What one request has at one pod is answered together. Beyond the budget its place among those that came during the
  same batch is where its time of arrival puts it. Large requests on small budgets, at high load, are slower than that:
  their last sequence, not their middle, decides; the simulation has it right.
* Batches are cut at the average full batch (EngineModel.full_batch_tokens).
"""

from dataclasses import dataclass

import numpy as np

from heddle.planning.delays import Delays
from heddle.planning.engine import EngineModel
from heddle.planning.traffic import Floats, Traffic

GRID = 512
MOMENTS = (np.arange(8) + 0.5) / 8  # of an arrival within a batch
# Of the transforms: the grid is doubled, as what goes beyond its end must not come back at its beginning.
FREQUENCIES = np.pi / GRID * np.arange(GRID + 1)
# Sums that lie between two steps are blurred by a normal distribution this wide, once; much less, and cutting off its
# transform would leave ripples.
BLUR_STEPS = 1.6
BLURRED_STEPS_MAX = 12
# What is less than that is the transform's rounding.
NOISE = 1e-10
# The grid reaches this many times as far as the typical batch.
REACH = 10.0
# More than that at the grid's end, and it has to reach further: so many times as far in the end.
STRETCHES = (1, 3, 9)
OVERFLOW_MAX = 3e-3


class OverloadedError(Exception):
    """More arrives than the pod can compute."""


@dataclass(frozen=True, slots=True)
class PodFigures:
    latency: Delays  # of a visit: all that one request has at one pod
    load: float  # share of the most that the pod can do
    busy: float  # share of the time that it computes, if only small batches
    batch_tokens: float  # average


def pod_figures(engine: EngineModel, traffic: Traffic, pods: int) -> PodFigures:
    """Of each of `pods` among which the traffic is spread at random. Raises OverloadedError."""
    load = traffic.tokens_per_s / pods / engine.tokens_per_s_max(traffic.tokens)
    if load >= 1:
        raise OverloadedError
    for stretch in STRETCHES:
        figures = Chain(engine, traffic, pods, load, stretch).figures()
        if figures is not None:
            return figures
    raise OverloadedError


class Chain:
    """States are the tokens that wait when a batch ends, in steps of the grid."""

    def __init__(self, engine: EngineModel, traffic: Traffic, pods: int, load: float, stretch: float) -> None:
        self._engine, self._traffic, self._pods, self._load = engine, traffic, pods, load
        budget = engine.full_batch_tokens(traffic.tokens)
        step = max(1.0, stretch * self._reach(budget) / GRID)
        self._step = step
        self._budget = min(max(1, round(budget / step)), GRID - 1)
        self._tokens = transformed(traffic.tokens.probabilities, step)
        self._blur = np.exp(-((BLUR_STEPS * FREQUENCIES) ** 2) / 2) if step > 1 else np.ones(GRID + 1)
        self._share = 1 / pods  # of a request's sequences, each by itself
        self._batch_s = engine.fixed_s + engine.per_token_s * step * np.arange(GRID)

    def _reach(self, budget: float) -> float:
        """Tokens that the grid must hold: several typical batches, and several budgets once these matter."""
        tokens_per_s = self._traffic.tokens_per_s / self._pods
        largest = self._traffic.tokens.quantile(1 - 1e-6) + self._traffic.tokens_per_request / self._pods
        typical = tokens_per_s * self._engine.fixed_s / max(1 - tokens_per_s * self._engine.per_token_s, 0.02)
        wanted = REACH * min(typical, budget) + 2 * largest
        return max(wanted, 12 * budget) if typical > budget / 4 else wanted

    def figures(self) -> PodFigures | None:
        """None if the grid is too short for what waits."""
        request = self._request()
        per_s = self._traffic.requests_per_s
        taken = np.arange(self._budget + 1)
        seconds = self._batch_s[taken]
        nothing = np.exp(-per_s * seconds * (1 - self._nothing_of_a_request()))
        transform = np.exp(per_s * seconds[:, None] * (request[None, :] - 1))
        arrived = self._on_grid(transform, nothing)
        visit = self._visit(request)
        first = self._on_grid(visit[None, :])[0]  # what an idle pod gets
        waiting = stationary(self._transitions(arrived, first))
        if waiting[-1] > OVERFLOW_MAX:
            return None
        began = waiting.copy()
        began[0] = 0
        began += waiting[0] * first  # what waits when a batch begins, all of it
        return self._assembled(waiting, began, transform, visit)

    def _assembled(self, waiting: Floats, began: Floats, transform: Floats, own: Floats) -> PodFigures:
        taken = np.minimum(np.arange(GRID), self._budget)
        busy_s = began * self._batch_s[taken]
        idle_s = waiting[0] / (self._traffic.requests_per_s * (1 - self._nothing_of_a_request()))
        met = self._on_grid(transform * own[None, :])  # what comes during a batch, and what our own request brings
        total_s = busy_s.sum() + idle_s
        alone = idle_s / total_s * self._on_grid(own[None, :])[0]
        latency = self._latencies(busy_s / total_s, met, alone)
        return PodFigures(
            latency=latency,
            load=self._load,
            busy=float(busy_s.sum() / total_s),
            batch_tokens=float(began @ taken) * self._step,
        )

    def _latencies(self, share_of_time: Floats, met: Floats, alone: Floats) -> Delays:
        """`share_of_time` by what waited at the beginning of the batch; `met[taken]` by tokens, as `alone`,
        which finds the pod idle."""
        seconds, weights = [self._batch_s[np.minimum(np.arange(GRID), self._budget)]], [alone]
        full_s = self._batch_s[self._budget]
        grown = self._traffic.tokens_per_s / self._pods * full_s / self._step  # during a full batch
        met_at = np.arange(GRID)
        for began in np.flatnonzero(share_of_time > 1e-7).tolist():
            taken = min(began, self._budget)
            left = began - taken
            queued = left + met_at  # when the batch ends
            for moment in MOMENTS:
                ahead = (left + moment * met_at) // self._budget  # whole batches before ours
                ahead = np.where(queued > self._budget, ahead, 0)
                own = np.minimum(queued - ahead * self._budget + ahead * grown, self._budget)
                own_s = self._engine.fixed_s + self._engine.per_token_s * self._step * own
                seconds.append((1 - moment) * self._batch_s[taken] + ahead * full_s + own_s)
                weights.append(share_of_time[began] * met[taken] / MOMENTS.size)
        return Delays.weighted(np.concatenate(seconds), np.concatenate(weights))

    def _request(self) -> Floats:
        """Transform of the tokens that one request of the whole cluster brings this pod."""
        per_sequence = 1 - self._share + self._share * self._tokens
        return np.asarray(np.polynomial.polynomial.polyval(per_sequence, self._traffic.inputs.probabilities))

    def _visit(self, request: Floats) -> Floats:
        """As `_request`, of those requests that bring anything."""
        nothing = self._nothing_of_a_request()
        return (request - nothing) / (1 - nothing)

    def _nothing_of_a_request(self) -> float:
        probabilities = self._traffic.inputs.probabilities
        return float(np.polynomial.polynomial.polyval(1 - self._share, probabilities))

    def _transitions(self, arrived: Floats, first: Floats) -> Floats:
        """From what waits when one batch ends to what waits when the next does."""
        rows = np.zeros((GRID, GRID))
        rows[1 : self._budget + 1] = arrived[1:]
        for waiting in range(self._budget + 1, GRID):
            left = waiting - self._budget
            rows[waiting, left:] = arrived[self._budget, : GRID - left]
            rows[waiting, -1] += arrived[self._budget, GRID - left :].sum()
        following = np.vstack([rows[1 : self._budget + 1], np.repeat(rows[[self._budget]], GRID, axis=0)])
        rows[0] = first[1:] @ following[: GRID - 1]
        rows[:, -1] += np.maximum(0, 1 - rows.sum(axis=1))
        return rows

    def _on_grid(self, transforms: Floats, nothing: Floats | float = 0.0) -> Floats:
        """Rows of probabilities from rows of their transforms. What lies beyond the grid is put at its end. The
        probability of 0 is `nothing`: less than half a step is still something, and a pod that has it is not idle."""
        nothing = np.broadcast_to(np.asarray(nothing), len(transforms))
        whole = np.fft.irfft((transforms - nothing[:, None]) * self._blur, 2 * GRID, axis=1)
        whole[whole < NOISE] = 0
        rows = whole[:, :GRID].copy()
        rows[:, 1] += rows[:, 0] + whole[:, -BLURRED_STEPS_MAX:].sum(axis=1)
        rows[:, 0] = 0
        rows[:, -1] += whole[:, GRID:-BLURRED_STEPS_MAX].sum(axis=1)
        rows *= ((1 - nothing) / np.maximum(rows.sum(axis=1), 1e-300))[:, None]
        rows[:, 0] = nothing
        return rows


def transformed(probabilities: Floats, step: float) -> Floats:
    """Fourier transform at the grid's frequencies, of whole numbers that need not be on the grid. Only their sums are
    put on it: done to each number, it would add a variance of its own each time."""
    places = np.arange(probabilities.size) / step
    return np.asarray(np.exp(-1j * np.outer(FREQUENCIES, places)) @ probabilities)


def stationary(transitions: Floats) -> Floats:
    """The distribution that the chain keeps."""
    equations = transitions.T - np.eye(len(transitions))
    equations[-1] = 1
    wanted = np.zeros(len(transitions))
    wanted[-1] = 1
    solution = np.maximum(np.linalg.solve(equations, wanted), 0)
    return np.asarray(solution / solution.sum())
