"""Which waiting sequences a batch takes: turns, budgets, priorities, parts and expiry, by example."""

import time
from collections import Counter

import pytest

from engine_svc.batching import PASSED_OVER_MAX, Batch
from engine_svc.submission import Submission
from tests.engine_svc.submissions import (
    list_expired,
    list_submissions,
    make_scheduler,
    several,
    single,
    take_all,
    take_next,
)


def test_flows_share_a_batch_equally_and_take_what_others_leave() -> None:
    many = [single(flow="many") for _ in range(6)]
    few = [single(flow="few") for _ in range(2)]
    scheduler = make_scheduler(*many, *few)
    assert set(list_submissions(take_next(scheduler))) == {*many, *few}
    scheduler = make_scheduler(*(single(flow=flow) for flow in ["many"] * 20 + ["few"] * 20))
    assert Counter(each.flow for each in list_submissions(take_next(scheduler))) == {"many": 4, "few": 4}


def test_a_single_query_does_not_wait_for_two_thousand_inputs_of_another_flow() -> None:
    scheduler = make_scheduler(*(single(flow="bulk") for _ in range(2048)))
    take_next(scheduler)
    query = single(flow="query")
    scheduler.submit([query])
    assert query in list_submissions(take_next(scheduler))


def test_turns_continue_where_the_last_batch_ended() -> None:
    submissions = [single(flow=flow) for flow in "abcdefghijkl"]
    again = single(flow="a")
    scheduler = make_scheduler(*submissions, again)
    assert list_submissions(take_next(scheduler)) == submissions[:8]
    assert list_submissions(take_next(scheduler)) == [*submissions[8:], again]


def test_a_sequence_that_does_not_fit_comes_first_in_the_next_batch() -> None:
    first, long, short, behind_long = single(60), single(50, "long"), single(40, "short"), single(1, "long")
    scheduler = make_scheduler(first, long, behind_long, short)
    assert list_submissions(take_next(scheduler)) == [first, short]
    assert list_submissions(take_next(scheduler)) == [long, behind_long]


def test_long_sequences_of_n_flows_are_served_within_n_batches() -> None:
    long = [single(90, f"long {number}") for number in range(5)]
    scheduler = make_scheduler(*long)
    for expected in long:
        scheduler.submit([single(10, f"short {number}") for number in range(8)])
        assert list_submissions(take_next(scheduler))[0] is expected


def test_sequence_longer_than_the_budget_runs_alone() -> None:
    short, over_long, after = single(10), single(101, "long"), single(10)
    scheduler = make_scheduler(short, over_long, after)
    assert list_submissions(take_next(scheduler)) == [short, after]
    assert list_submissions(take_next(scheduler)) == [over_long]


def test_the_first_priority_is_served_first_and_leaves_its_rest_to_the_next() -> None:
    low, high = [single(priority=7) for _ in range(8)], [single(priority=1) for _ in range(6)]
    scheduler = make_scheduler(*low, *high)
    assert list_submissions(take_next(scheduler)) == [*high, *low[:2]]


def test_same_flow_name_in_two_classes_is_two_flows() -> None:
    low, high = single(priority=1), single(priority=0)
    scheduler = make_scheduler(low, high)
    assert scheduler.cancel(high)
    assert list_submissions(take_next(scheduler)) == [low]


def test_expired_are_reported_without_costing_their_flow_a_turn() -> None:
    past = time.monotonic() - 1
    late = [single(deadline=past) for _ in range(20)]
    live = single(deadline=past + 3600)
    batch = take_next(make_scheduler(*late, live))
    assert list_expired(batch) == late
    assert list_submissions(batch) == [live]


def test_batch_of_only_expired_is_returned() -> None:
    late = single(deadline=time.monotonic())
    batch = take_next(make_scheduler(late))
    assert list_expired(batch) == [late]
    assert list_submissions(batch) == []


def test_forming_a_batch_does_not_visit_every_waiting_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: Counter[str] = Counter()
    count_fitting = Batch.count_fitting

    def counted(batch: Batch, submission: Submission) -> int:
        looks["fitting"] += 1
        return count_fitting(batch, submission)

    monkeypatch.setattr(Batch, "count_fitting", counted)
    scheduler = make_scheduler(*(single(60, str(number)) for number in range(10_000)))
    take_next(scheduler)
    assert looks["fitting"] == 1 + PASSED_OVER_MAX


def test_a_large_submission_leaves_in_parts_as_large_as_a_batch() -> None:
    whole = several([10] * 20)
    scheduler = make_scheduler(whole)
    spans = [(part.start, part.stop) for batch in take_all(scheduler) for part in batch.parts]
    assert spans == [(0, 8), (8, 16), (16, 20)]


def test_a_part_ends_where_the_token_budget_of_the_batch_ends() -> None:
    scheduler = make_scheduler(several([60, 30, 20, 110, 5]))
    spans = [(part.start, part.stop) for batch in take_all(scheduler) for part in batch.parts]
    assert spans == [(0, 2), (2, 3), (3, 4), (4, 5)]


def test_a_bulk_and_a_single_query_share_a_batch() -> None:
    bulk, query = several([10] * 32, "bulk"), single(10, "query")
    batch = take_next(make_scheduler(bulk, query))
    assert Counter(list_submissions(batch)) == {bulk: 7, query: 1}
    assert batch is not None


def test_flows_have_equal_shares_whether_they_come_in_one_submission_or_many() -> None:
    together, apart = several([10] * 40, "one"), [single(10, "two") for _ in range(40)]
    for batch in take_all(make_scheduler(together, *apart)):
        assert Counter(each.flow for each in list_submissions(batch)) == {"one": 4, "two": 4}


def test_cancelling_removes_the_parts_that_still_wait() -> None:
    running, other = several([10] * 20), single(10, "other")
    scheduler = make_scheduler(running)
    take_next(scheduler)
    assert scheduler.cancel(running)
    assert not scheduler.cancel(running)
    scheduler.submit([other])
    assert [list_submissions(batch) for batch in take_all(scheduler)] == [[other]]
