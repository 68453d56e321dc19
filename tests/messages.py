"""Messages of the engine's contract for tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from heddle.v1 import engine_pb2


def submitted(*id_lists: Sequence[int], **options: Any) -> engine_pb2.Sequences:
    """Makes the message of sequences with these ids."""
    return engine_pb2.Sequences(
        token_ids=np.array([token_id for ids in id_lists for token_id in ids], "<u4").tobytes(),
        lengths=np.array([len(ids) for ids in id_lists], "<u4").tobytes(),
        **options,
    )
