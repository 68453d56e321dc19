"""What a client takes to be ahead of an item at a pod."""

from heddle.rpc.load import OTHERS_DIVISOR, estimated_load


def test_own_items_count_in_full_and_those_of_others_as_a_hint() -> None:
    assert estimated_load(unanswered=100, reported=100 + OTHERS_DIVISOR) == 101


def test_report_that_is_older_than_what_was_sent_takes_nothing_away() -> None:
    assert estimated_load(unanswered=100, reported=20) == 100
