"""A simulated pod forms the batches that the engine's scheduler forms, whatever comes in whatever order."""

import hypothesis.strategies as st
from hypothesis import given

from engine_svc import scheduler
from engine_svc.scheduler import Scheduler
from heddle.planning import pod_queue
from heddle.planning.engine import EngineModel
from heddle.planning.pod_queue import PodQueue
from tests.engine_svc.tickets import LIMITS, computed, passed, ticket

ENGINE = EngineModel(1e-3, 1e-6, LIMITS.batch_tokens_max, LIMITS.batch_items_max)
ROOM = scheduler.SchedulerLimits(LIMITS.batch_tokens_max, LIMITS.batch_items_max, 10**6, 10**6)

# Sequences that arrive between two batches: tokens (some beyond the budget) and flow.
ARRIVALS = st.lists(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), max_size=10), max_size=12)


@given(ARRIVALS)
def test_batches_are_those_of_the_scheduler(frames: list[list[tuple[int, int]]]) -> None:
    sequences = [sequence for frame in frames for sequence in frame]
    queue = PodQueue(ENGINE, [tokens for tokens, _ in sequences], [flow for _, flow in sequences])
    real = Scheduler(ROOM)
    tickets = [ticket(tokens, str(flow)) for tokens, flow in sequences]
    number_of = {each: number for number, each in enumerate(tickets)}
    arrived = 0
    while arrived < len(sequences) or queue.tokens:
        frame = frames.pop(0) if frames else []
        for number in range(arrived, arrived + len(frame)):
            queue.put(number)
            assert real.submit([tickets[number]]) == []
        arrived += len(frame)
        batch = passed(real, 0)
        if batch is None:
            assert queue.tokens == 0
            continue
        taken, tokens = queue.take()
        assert sorted(taken) == sorted(number_of[each] for each in computed(batch))
        assert tokens == batch.tokens
        assert queue.tokens == real.load().waiting_tokens


def test_as_many_flows_are_passed_over() -> None:
    assert pod_queue.PASSED_OVER_MAX == scheduler.PASSED_OVER_MAX
