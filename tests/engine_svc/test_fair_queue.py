"""Callers take turns at the engine, however many requests each sends, and so do the requests of one caller."""

from engine_svc.batching import SchedulerLimits
from tests.engine_svc.submissions import list_submissions, make_scheduler, single, take_all, take_next
from tests.engine_svc.test_scheduler import make_scheduler_with_bulk


def test_one_caller_with_many_requests_has_no_more_turns_than_one_with_a_single_query() -> None:
    many = [single(flow=f"many/{request}") for request in range(256)]
    scheduler = make_scheduler(*many)
    take_next(scheduler)
    query = single(flow="few/1")
    scheduler.submit([query])
    assert query in list_submissions(take_next(scheduler))


def test_callers_share_the_turns_equally() -> None:
    many = [single(flow=f"many/{request}") for request in range(30) for _ in range(4)]
    few = [single(flow="few/1") for _ in range(40)]
    taken = [each for batch in take_all(make_scheduler(*many, *few)) for each in list_submissions(batch)]
    assert [each.flow.split("/")[0] for each in taken[:80]] == ["many", "few"] * 40


def test_requests_of_one_caller_take_turns() -> None:
    bulk = [single(flow="caller/bulk") for _ in range(2048)]
    scheduler = make_scheduler(*bulk)
    take_next(scheduler)
    query = single(flow="caller/query")
    scheduler.submit([query])
    assert query in list_submissions(take_next(scheduler))


def test_users_of_a_key_take_turns() -> None:
    ann = [single(flow=f"key/ann/{request}") for request in range(50)]
    bob, other_key = single(flow="key/bob/1"), [single(flow=f"other//{request}") for request in range(3)]
    taken = [each for batch in take_all(make_scheduler(*ann, bob, *other_key)) for each in list_submissions(batch)]
    assert taken[:6] == [ann[0], other_key[0], bob, other_key[1], ann[1], other_key[2]]


def test_a_sequence_that_does_not_fit_keeps_its_place_in_its_group_and_before_others() -> None:
    first, long, short, other = single(60), single(50, "c/long"), single(10, "c/short"), single(10, "d/1")
    scheduler = make_scheduler(first, long, short, other)
    assert list_submissions(take_next(scheduler)) == [first, short, other]
    latecomers = [single(10, f"e/{number}") for number in range(8)]
    scheduler.submit(latecomers)
    assert list_submissions(take_next(scheduler))[0] is long


def test_a_long_sequence_is_passed_over_only_once_for_short_ones_of_its_group() -> None:
    long = single(90, "c/long")
    scheduler = make_scheduler(single(20, "f/0"), long)
    for number in range(1, 4):
        scheduler.submit([single(10, f"c/{number}"), single(20, f"f/{number}")])
        if long in list_submissions(take_next(scheduler)):
            break
    assert number == 2


def test_empty_groups_are_removed() -> None:
    submissions = [single(flow=f"{number % 7}/{number % 3}/{number}") for number in range(200)]
    scheduler = make_scheduler(*submissions, limits=SchedulerLimits(100, 8, 10**6, 10**5))
    assert all(scheduler.cancel(each) for each in submissions[::2])
    assert sum(len(list_submissions(batch)) for batch in take_all(scheduler)) == 100
    assert not scheduler._queue._classes[0]._all.members


def test_an_express_batch_takes_from_each_caller_in_turn() -> None:
    many = [single(20, f"many/{number}") for number in range(20)]
    few = [single(20, "few/1"), single(20, "few/2")]
    express = make_scheduler_with_bulk(*many, *few).take_express(0)
    assert list_submissions(express) == [many[0], few[0], many[1], few[1], many[2], many[3]]
