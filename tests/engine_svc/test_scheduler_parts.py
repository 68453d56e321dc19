"""How the scheduler divides submissions of many sequences among batches, by example."""

from collections import Counter

from tests.engine_svc.submissions import batches, computed, passed, scheduler_of, several, single


def test_a_submission_leaves_in_parts_of_what_a_batch_holds() -> None:
    whole = several([10] * 20)
    scheduler = scheduler_of(whole)
    spans = [(part.start, part.stop) for batch in batches(scheduler) for part in batch.parts]
    assert spans == [(0, 8), (8, 16), (16, 20)]


def test_parts_are_cut_where_the_tokens_of_a_batch_end() -> None:
    scheduler = scheduler_of(several([60, 30, 20, 110, 5]))
    spans = [(part.start, part.stop) for batch in batches(scheduler) for part in batch.parts]
    assert spans == [(0, 2), (2, 3), (3, 4), (4, 5)]


def test_a_bulk_and_a_single_query_share_a_batch() -> None:
    bulk, query = several([10] * 32, "bulk"), single(10, "query")
    batch = passed(scheduler_of(bulk, query))
    assert Counter(computed(batch)) == {bulk: 7, query: 1}
    assert batch is not None


def test_flows_have_equal_shares_whether_they_come_in_one_submission_or_many() -> None:
    together, apart = several([10] * 40, "one"), [single(10, "two") for _ in range(40)]
    counts = [Counter(each.flow for each in computed(batch)) for batch in batches(scheduler_of(together, *apart))]
    assert counts == [{"one": 4, "two": 4}] * 10


def test_a_cancelled_submission_leaves_with_what_waits_of_it() -> None:
    running, other = several([10] * 20), single(10, "other")
    scheduler = scheduler_of(running)
    passed(scheduler)
    assert scheduler.cancel(running)
    assert not scheduler.cancel(running)
    scheduler.submit([other])
    assert [computed(batch) for batch in batches(scheduler)] == [[other]]
