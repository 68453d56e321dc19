"""A discrete-event simulation of clients (tokenizer pods) that spread sequences over engine pods, to compare balancing
policies and to check the queueing model. Called by heddle.plan.

Requests come as a Poisson process, each to a random client, which picks a pod for each of its sequences at once; these
reach their pods after `network_s`. A pod's lane that is free takes what waits, as engine_svc.scheduler does. Answers of
a batch, and with them the pod's load once its next batch has begun, are back at the clients after `network_s`. Not in
here: passes side by side, as a pod without a GPU runs them, lost pods, deadlines, limits of the queue (overload shows
as latency), and heartbeats, which bring a report every two seconds even without answers.

Of the four kinds of events three happen in the order in which they were made, as all delays of a kind are the same:
they are plain queues. Only the ends of batches need a heap, of one entry for each busy pod.
"""

import contextlib
import gc
import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from heddle.planning.balancing import Policy, balancer_of
from heddle.planning.engine import EngineModel
from heddle.planning.pod_queue import PodQueue
from heddle.planning.traffic import Floats, Traffic

WARM_UP_SHARE = 0.1  # of the requests: they fill the cluster, and are not measured
PROGRESS_EVERY = 8192  # requests


@dataclass(frozen=True, slots=True)
class Cluster:
    engine: EngineModel
    pods: int
    clients: int
    network_s: float  # one way
    # Pods that are slower by `slow_factor`: throttled, or with a neighbour.
    slow_pods: int = 0
    slow_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests in the order of time, and the tokens of their sequences: request i has those from first[i] to
    first[i + 1]."""

    times_s: list[float]
    clients: list[int]
    first: list[int]
    tokens: list[int]

    @classmethod
    def draw(cls, traffic: Traffic, sequences: int, clients: int, random: np.random.Generator) -> "Arrivals":
        """About so many sequences."""
        requests = max(1, round(sequences / traffic.inputs.average))
        inputs = traffic.inputs.draw(random, requests)
        first = np.concatenate(([0], np.cumsum(inputs)))
        return cls(
            times_s=np.cumsum(random.exponential(1 / traffic.requests_per_s, requests)).tolist(),
            clients=random.integers(0, clients, requests).tolist(),
            first=first.tolist(),
            tokens=traffic.tokens.draw(random, int(first[-1])).tolist(),
        )


@dataclass(frozen=True)
class Outcome:
    """Latencies are a client's, of requests: until the last of its sequences is answered."""

    latencies_s: Floats  # of each request, in the order of arrival; the measured ones
    utilization: float  # share of the pods' time that they were computing
    batch_tokens: float  # average
    sequences_per_s: float  # answered within the measured time
    batches: list[tuple[float, int, list[int]]]  # start, pod, sequences: where they were to be kept

    def latency_s(self, share: float) -> float:
        return float(np.quantile(self.latencies_s, share))


def simulated(
    cluster: Cluster,
    traffic: Traffic,
    policy: Policy,
    *,
    sequences: int,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> Outcome:
    random = np.random.default_rng(seed)
    arrivals = Arrivals.draw(traffic, sequences, cluster.clients, random)
    with without_garbage_collection():
        return Run(cluster, arrivals, policy, random).until_all_is_answered(progress)


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Millions of small lists and tuples without a cycle among them would be looked through again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Run:
    def __init__(
        self,
        cluster: Cluster,
        arrivals: Arrivals,
        policy: Policy,
        random: np.random.Generator,
        *,
        keeps_batches: bool = False,
    ) -> None:
        self._arrivals = arrivals
        self._network_s = cluster.network_s
        self._balancer = balancer_of(policy, cluster.clients, cluster.pods, random)
        self._engine = cluster.engine
        self._slowness = [cluster.slow_factor] * cluster.slow_pods + [1.0] * (cluster.pods - cluster.slow_pods)
        self._running: list[list[int] | None] = [None] * cluster.pods
        sizes = np.diff(arrivals.first)
        self._request_of: list[int] = np.repeat(np.arange(len(sizes)), sizes).tolist()  # its flow at the pods
        self._queues = [PodQueue(cluster.engine, arrivals.tokens, self._request_of) for _ in range(cluster.pods)]
        self._unanswered: list[int] = sizes.tolist()  # sequences of each request
        self._pod_of = [0] * len(arrivals.tokens)
        self._answered_s = [math.inf] * len(sizes)
        self._under_way: deque[tuple[float, int]] = deque()  # to pods: when, request
        self._ends: list[tuple[float, int]] = []  # of batches: when, pod; a heap
        self._coming_back: deque[tuple[float, int, list[int], int]] = deque()  # when, pod, sequences, load
        self._batches: list[tuple[float, int, list[int]]] | None = [] if keeps_batches else None
        # What is measured lies between these.
        self._from_s = arrivals.times_s[int(WARM_UP_SHARE * len(sizes))]
        self._to_s = arrivals.times_s[-1]
        self._busy_s = 0.0
        self._batch_count = self._batch_tokens = self._answered_sequences = 0

    def until_all_is_answered(self, progress: Callable[[float], None]) -> Outcome:
        times = [*self._arrivals.times_s, math.inf]
        under_way, ends, coming_back = self._under_way, self._ends, self._coming_back
        request = 0
        while True:
            arrives = times[request]
            ends_at = ends[0][0] if ends else math.inf
            back = coming_back[0][0] if coming_back else math.inf
            lands = under_way[0][0] if under_way else math.inf
            # What happens at the same time: answers, then ends of batches, then what reaches pods, then new requests.
            if back <= ends_at and back <= lands and back <= arrives:
                if back == math.inf:
                    return self._outcome()
                self._hand_back(*coming_back.popleft())
            elif ends_at <= lands and ends_at <= arrives:
                self._end_batch(*heapq.heappop(ends))
            elif lands <= arrives:
                self._land(*under_way.popleft())
            else:
                self._send(arrives, request)
                request += 1
                if request % PROGRESS_EVERY == 0:
                    progress(request / len(self._unanswered))

    def _send(self, now: float, request: int) -> None:
        arrivals, tokens, send, pod_of = self._arrivals, self._arrivals.tokens, self._balancer.send, self._pod_of
        client = arrivals.clients[request]
        for sequence in range(arrivals.first[request], arrivals.first[request + 1]):
            pod_of[sequence] = send(client, tokens[sequence])
        self._under_way.append((now + self._network_s, request))

    def _land(self, now: float, request: int) -> None:
        """What one request has at a pod arrives as one frame: an idle pod takes all of it."""
        arrivals, pod_of, running, queues = self._arrivals, self._pod_of, self._running, self._queues
        idle: dict[int, None] = {}
        for sequence in range(arrivals.first[request], arrivals.first[request + 1]):
            pod = pod_of[sequence]
            queues[pod].put(sequence)
            if running[pod] is None:
                idle[pod] = None
        for pod in idle:
            self._begin_batch(now, pod)

    def _begin_batch(self, now: float, pod: int) -> None:
        batch, tokens = self._queues[pod].take()
        seconds = self._engine.batch_s(tokens) * self._slowness[pod]
        self._running[pod] = batch
        heapq.heappush(self._ends, (now + seconds, pod))
        if now + seconds > self._from_s and now < self._to_s:
            self._busy_s += min(now + seconds, self._to_s) - max(now, self._from_s)
            self._batch_count += 1
            self._batch_tokens += tokens
        if self._batches is not None:
            self._batches.append((now, pod, batch))

    def _end_batch(self, now: float, pod: int) -> None:
        done = self._running[pod]
        assert done is not None
        if self._from_s <= now <= self._to_s:
            self._answered_sequences += len(done)
        load = self._queues[pod].tokens
        if load:
            self._begin_batch(now, pod)  # what was waiting is waiting or running now
        else:
            self._running[pod] = None
        self._coming_back.append((now + self._network_s, pod, done, load))

    def _hand_back(self, now: float, pod: int, sequences: list[int], load: int) -> None:
        client_of, tokens, request_of = self._arrivals.clients, self._arrivals.tokens, self._request_of
        unanswered, answered = self._unanswered, self._balancer.answered
        clients = set()
        for sequence in sequences:
            request = request_of[sequence]
            client = client_of[request]
            answered(client, pod, tokens[sequence])
            clients.add(client)
            unanswered[request] -= 1
            if not unanswered[request]:
                self._answered_s[request] = now
        for client in clients:
            self._balancer.reported(client, pod, load)

    def _outcome(self) -> Outcome:
        latencies = np.array(self._answered_s) - np.array(self._arrivals.times_s)
        measured_s = max(self._to_s - self._from_s, 1e-12)
        return Outcome(
            latencies_s=latencies[int(WARM_UP_SHARE * len(latencies)) :],
            utilization=self._busy_s / (measured_s * len(self._queues)),
            batch_tokens=self._batch_tokens / max(self._batch_count, 1),
            sequences_per_s=self._answered_sequences / measured_s,
            batches=self._batches or [],
        )
