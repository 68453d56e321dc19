"""Fuzzed data of peers: pieces of large outcomes, error details, trace contexts."""

from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from heddle.rpc.errors import DETAIL_KEY, ErrorKind, HeddleError
from heddle.rpc.pieces import Joiner
from heddle.telemetry.traceparent import TRACEPARENT, read_traceparent, read_tracestate
from heddle.v1 import engine_pb2, inference_pb2, item_pb2
from tests.fuzz.strategies import BOUNDED, TEXTS, bytes_near

OUTCOME = engine_pb2.Outcome(id=3, queue_us=7).SerializeToString()
DETAIL = HeddleError(ErrorKind.OVERLOADED, "full", retry_after_ms=100).to_proto().SerializeToString()
PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@given(
    st.lists(
        st.builds(
            item_pb2.OutcomePiece,
            id=st.integers(0, 3),
            data=bytes_near(OUTCOME),
            ends_part=st.booleans(),
            is_last=st.booleans(),
        ),
        max_size=8,
    ),
    st.sampled_from([engine_pb2.Outcome, inference_pb2.InferenceOutcome]),
)
@BOUNDED
def test_pieces(pieces: list[item_pb2.OutcomePiece], kind: Any) -> None:
    joiner = Joiner(kind)
    with suppress(DecodeError):
        outcomes = joiner.join(pieces, {0, 1, 2})
        assert {outcome.id for outcome in outcomes} <= {0, 1, 2}


@given(
    st.sampled_from(list(grpc.StatusCode)),
    bytes_near(DETAIL),
    TEXTS,
)
@BOUNDED
@example(grpc.StatusCode.OK, b"\xff", "")
def test_details_of_errors(code: grpc.StatusCode, detail: bytes, text: str) -> None:
    metadata = grpc.aio.Metadata((DETAIL_KEY, detail))
    error = HeddleError.from_rpc_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, text))
    error.to_proto().SerializeToString()


@given(bytes_near(PARENT).map(lambda data: data.decode("latin-1")) | TEXTS)
@BOUNDED
def test_trace_contexts(stated: str) -> None:
    read = read_traceparent(stated)
    assert read == "" or TRACEPARENT.fullmatch(read)
    assert len(read_tracestate(stated)) <= 512
