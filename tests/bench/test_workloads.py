"""Requests to the servers are not repeated too soon, have the promised lengths, and are checked."""

import pytest

from tests.bench.workloads import DOCUMENTS, TOKENS_MAX, WORKLOADS


@pytest.mark.parametrize("name", ["short", "long", "mix", "rerank"])
def test_no_request_is_sent_twice_before_all_were(name: str) -> None:
    requests = WORKLOADS[name].requests
    texts = [(request.query, *request.texts) for request in requests]
    # Of three words, few combinations occur twice.
    assert len(set(texts)) > 0.97 * len(texts)


def test_tokens_are_counted_after_the_models_limit() -> None:
    assert {request.tokens for request in WORKLOADS["short"].requests} == {5}
    assert {request.tokens for request in WORKLOADS["long"].requests} == {TOKENS_MAX}
    assert {len(request.texts) for request in WORKLOADS["rerank"].requests} == {DOCUMENTS}


def test_the_mix_has_one_to_sixty_four_inputs_most_of_them_short() -> None:
    requests = WORKLOADS["mix"].requests
    counts = [len(request.texts) for request in requests]
    lengths = sorted(text.count(" ") + 3 for request in requests for text in request.texts)
    assert (min(counts), max(counts)) == (1, 64)
    assert lengths[0] >= 4
    assert lengths[len(lengths) // 2] < 40
    assert TOKENS_MAX < lengths[-1] <= 512


@pytest.mark.parametrize("name", ["short", "long", "mix", "rerank"])
def test_turns_begin_with_a_checked_request_and_each_elsewhere(name: str) -> None:
    workload = WORKLOADS[name]
    starts = [workload.first_of(turn) for turn in range(3)]
    assert set(starts) <= set(workload.checked)
    assert len(set(starts)) == 3
