"""What waits at a simulated engine pod, and which of it runs next. Used by heddle.planning.simulation.

The rules are those of engine_svc.scheduler, for one class, without deadlines, cancelling or equal sequences: flows take
turns, one sequence a turn; what does not fit keeps its place while others fill the rest. A test holds the two equal.
The scheduler itself serves threads, and would take most of a simulation's time.
"""

from collections import OrderedDict, deque

from heddle.planning.engine import EngineModel

# As engine_svc.scheduler has it.
PASSED_OVER_MAX = 64


class PodQueue:
    __slots__ = ("_arrived", "_flow_of", "_flows", "_items", "_items_max", "_tokens_max", "_tokens_of", "tokens")

    def __init__(self, engine: EngineModel, tokens_of: list[int], flow_of: list[int]) -> None:
        """`tokens_of` and `flow_of` each sequence, by its number."""
        self.tokens = 0
        self._items = 0
        self._tokens_max = engine.batch_tokens_max
        self._items_max = engine.batch_items_max
        self._tokens_of = tokens_of
        self._flow_of = flow_of
        # Turns matter only to those that do not fit into one batch, so what arrives is not put into flows at once.
        self._arrived: list[int] = []
        self._flows: OrderedDict[int, deque[int]] = OrderedDict()  # in the order of their turns; none is empty

    def put(self, sequence: int) -> None:
        self._arrived.append(sequence)
        self._items += 1
        self.tokens += self._tokens_of[sequence]

    def take(self) -> tuple[list[int], int]:
        """The sequences of the next batch, and their tokens."""
        if self.tokens <= self._tokens_max and self._items <= self._items_max:
            return self._take_all()
        self._put_into_flows()
        return self._take_turns()

    def _take_all(self) -> tuple[list[int], int]:
        batch, tokens = self._arrived, self.tokens
        if self._flows:
            batch = [*(sequence for flow in self._flows.values() for sequence in flow), *batch]
            self._flows.clear()
        self._arrived = []
        self._items = self.tokens = 0
        return batch, tokens

    def _put_into_flows(self) -> None:
        for sequence in self._arrived:
            flow = self._flow_of[sequence]
            waiting = self._flows.get(flow)
            if waiting is None:
                self._flows[flow] = deque((sequence,))
            else:
                waiting.append(sequence)
        self._arrived = []

    def _take_turns(self) -> tuple[list[int], int]:
        flows, tokens_of, tokens_max = self._flows, self._tokens_of, self._tokens_max
        batch: list[int] = []
        tokens = 0
        passed_over: list[tuple[int, deque[int]]] = []
        while flows and tokens < tokens_max and len(batch) < self._items_max and len(passed_over) < PASSED_OVER_MAX:
            flow, waiting = next(iter(flows.items()))
            sequence = waiting[0]
            if batch and tokens + tokens_of[sequence] > tokens_max:
                passed_over.append((flow, waiting))
                del flows[flow]
                continue
            waiting.popleft()
            batch.append(sequence)
            tokens += tokens_of[sequence]
            if waiting:
                flows.move_to_end(flow)
            else:
                del flows[flow]
        for flow, waiting in reversed(passed_over):
            flows[flow] = waiting
            flows.move_to_end(flow, last=False)
        self._items -= len(batch)
        self.tokens -= tokens
        return batch, tokens
