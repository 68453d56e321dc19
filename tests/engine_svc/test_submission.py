"""The outcome of a submission whose parts finish one after another."""

import gc
import weakref

import numpy as np

from engine_svc.rows import Rows
from engine_svc.submission import Outcome
from tests.engine_svc.submissions import several


def test_rows_are_freed_with_the_submission_and_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        for is_whole in (True, False):
            submission = several([1, 1])
            parts = [submission.take(1), submission.take(1)]
            values = np.ones((1, 4), np.float32)
            row = weakref.ref(values)
            assert submission.finish(parts[1], Outcome([Rows(values)], [(0, ValueError())])) is None
            if is_whole:
                outcome = submission.finish(parts[0], Outcome([Rows(2 * values)]))
                assert outcome is not None
                np.testing.assert_array_equal(outcome.results[0].values[:, 0], [2, 1])
                assert [index for index, _ in outcome.errors] == [1]
                del outcome
            del submission, parts, values
            assert row() is None
    finally:
        gc.enable()
