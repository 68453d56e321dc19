"""The spans of a submission that several batches compute, and of batches that compute nothing recorded."""

import logging
from typing import Any

import numpy as np
import pytest

from engine_svc.batching import Batch, SchedulerLimits
from engine_svc.sequences import Options, Output, Sequences
from engine_svc.spans import BatchSpans
from engine_svc.submission import Submission
from heddle.telemetry.tracing import Tracing
from tests.collector import running_collector

LIMITS = SchedulerLimits(batch_tokens_max=16, batch_items_max=8, queue_tokens_max=100, queue_items_max=100)
RECORDED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def submission(traceparent: str = "") -> Submission:
    """Four sequences of two tokens."""
    sequences = Sequences.of(np.zeros(8, np.uint32), np.full(4, 2), options=Options(Output.VECTOR))
    made = Submission(sequences, "flow", lambda outcome: None, traceparent=traceparent)
    made.submitted_at = 1.0
    return made


def batch_of(*taken: tuple[Submission, int]) -> Batch:
    batch = Batch(2.0, LIMITS)
    for one, sequences in taken:
        batch.add(one.take(sequences))
    return batch


async def test_each_part_of_a_submission_is_linked_with_its_batch() -> None:
    with running_collector() as collector:
        tracing = Tracing("engine", collector.url, 0)
        record, ours, others = BatchSpans(tracing, "loom"), submission(RECORDED), submission()
        record(batch_of((ours, 1), (others, 4)), 3.0)
        record(batch_of((ours, 3)), 4.0)
        await tracing.close()
    batches = [span for span in collector.spans if span.name == "batch loom"]
    parts = [span for span in collector.spans if span.name == "compute"]
    assert [span.links for span in parts] == [[batch.ids] for batch in batches]
    assert [span.attributes["heddle.sequences"] for span in parts] == [1, 3]
    assert {link for batch in batches for link in batch.links} == {(RECORDED[3:35], RECORDED[36:52])}
    assert [batch.attributes["heddle.batch.tokens"] for batch in batches] == [10, 6]
    assert [batch.attributes["heddle.batch.submissions"] for batch in batches] == [2, 1]
    assert [batch.attributes["heddle.batch.fill"] for batch in batches] == [10 / 16, 6 / 16]
    assert [span.name for span in collector.spans].count("queue") == 2


class Broken:
    def record(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("the recorder broke")


@pytest.fixture
def broken(caplog: pytest.LogCaptureFixture) -> BatchSpans:
    caplog.set_level(logging.ERROR)
    return BatchSpans(Broken(), "loom")  # type: ignore[arg-type]


def test_a_batch_without_a_recorded_submission_has_no_span(
    broken: BatchSpans, caplog: pytest.LogCaptureFixture
) -> None:
    broken(batch_of((submission(), 4)), 3.0)
    assert not caplog.records


def test_a_bug_does_not_reach_the_worker(broken: BatchSpans, caplog: pytest.LogCaptureFixture) -> None:
    broken(batch_of((submission(RECORDED), 4)), 3.0)
    assert "the recorder broke" in caplog.text
