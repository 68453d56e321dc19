"""The step that runs the whole server says in one line why it cannot."""

import sys

import pytest
from google.protobuf import runtime_version

from tests.gpu.record import SkippedError
from tests.gpu.serving import check_stubs


def test_stubs_load_with_the_protobuf_of_the_tests() -> None:
    check_stubs()


def test_a_protobuf_older_than_the_stubs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "heddle.v1.engine_pb2", raising=False)
    monkeypatch.setattr(runtime_version, "MAJOR", 5)
    with pytest.raises(SkippedError, match=r"^heddle\.v1 does not load with protobuf .*: Detected incompatible"):
        check_stubs()
