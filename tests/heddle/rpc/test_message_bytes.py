"""Messages are serialized as protobuf would, unless they are too large."""

import pytest
from google.protobuf.message import EncodeError

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.message_bytes import check_size, encode_repeated, serialize
from heddle.v1 import engine_pb2, item_pb2, tensor_pb2


class BeyondProtobuf:
    """Behaves like a message of 2 GiB."""

    def ByteSize(self) -> int:
        raise EncodeError

    def SerializeToString(self) -> bytes:
        raise EncodeError


@pytest.mark.parametrize("size", [0, 1, 120, 128, 16_384, 3_000_000])
def test_an_encoded_frame_equals_the_message(size: int) -> None:
    outcomes = [
        engine_pb2.Outcome(
            id=number, results=[engine_pb2.Result(tensor=tensor_pb2.Tensor(data=bytes([number]) * size))]
        )
        for number in range(3)
    ]
    frame = engine_pb2.EngineServiceInferResponse(outcomes=outcomes, load=item_pb2.Load(waiting_items=7), draining=True)
    rest = engine_pb2.EngineServiceInferResponse(load=frame.load, draining=True)
    data = encode_repeated((outcome.SerializeToString() for outcome in outcomes), rest.SerializeToString())
    assert engine_pb2.EngineServiceInferResponse.FromString(data) == frame


def test_the_limit_itself_is_allowed_and_a_byte_more_is_not() -> None:
    tensor = tensor_pb2.Tensor(data=bytes(98))
    assert len(serialize(tensor, 100)) == check_size(tensor, 100) == 100
    for check in (serialize, check_size):
        with pytest.raises(HeddleError, match="has 100 bytes, the limit of a message is 99") as refused:
            check(tensor, 99)
        assert refused.value.kind is ErrorKind.TOO_LARGE


def test_a_message_over_the_limit_of_protobuf_is_too_large() -> None:
    for check in (serialize, check_size):
        with pytest.raises(HeddleError, match="more than 2\\^31 bytes") as refused:
            check(BeyondProtobuf(), 100)
        assert refused.value.kind is ErrorKind.TOO_LARGE
