"""Which data types an output can have."""

import pytest

from engine_svc.batch import Options, Output
from engine_svc.checks import check_fields
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import tensor_pb2


@pytest.mark.parametrize(
    ("output", "refused"),
    [
        (Output.VECTOR, []),
        (Output.TOKEN_VECTORS, []),
        (Output.LOGITS, ["INT8", "UINT8", "BINARY", "UBINARY"]),
        (Output.TOKEN_LOGITS, ["INT8", "UINT8", "BINARY", "UBINARY"]),
        (Output.SPARSE_VECTOR, ["FLOAT16", "BFLOAT16", "INT8", "UINT8", "BINARY", "UBINARY"]),
        (Output.COLBERT_VECTORS, []),
    ],
)
def test_an_output_has_the_data_types_that_it_can_be_told_in(output: Output, refused: list[str]) -> None:
    for data_type in tensor_pb2.DataType.keys():  # noqa: SIM118 - an enum of protobuf is no mapping
        number = tensor_pb2.DataType.Value(data_type)
        if data_type.removeprefix("DATA_TYPE_") not in refused:
            check_fields(Options(output), number)
            continue
        with pytest.raises(HeddleError) as caught:
            check_fields(Options(output), number)
        assert (caught.value.kind, caught.value.field) == (ErrorKind.INVALID_INPUT, "data_type")
