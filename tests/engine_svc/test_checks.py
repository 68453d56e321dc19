"""Submissions that are refused as a whole, and the data types that an output accepts."""

import pytest

from engine_svc.checks import Checks, check_fields
from engine_svc.sequences import Options, Output
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2 as pb
from heddle.v1 import model_pb2, tensor_pb2
from tests.messages import submitted

EMBEDDER = model_pb2.Model(
    name="some-model",
    kind=model_pb2.MODEL_KIND_EMBEDDER,
    vocabulary_size=30522,
    sequence_tokens_max=256,
    dimension=384,
)

BAD_SUBMISSIONS = [
    (pb.Sequences(), "lengths", ErrorKind.EMPTY_INPUT, "at least one sequence"),
    (pb.Sequences(token_ids=b"12345", lengths=b"\1\0\0\0"), "token_ids", ErrorKind.INVALID_INPUT, "multiple of 4"),
    (pb.Sequences(token_ids=b"1234", lengths=b"\1"), "lengths", ErrorKind.INVALID_INPUT, "multiple of 4"),
    (pb.Sequences(token_ids=b"12345678", lengths=b"\1\0\0\0"), "lengths", ErrorKind.INVALID_INPUT, "add up to 1"),
    (submitted([7, 8], type_ids=b"\0"), "type_ids", ErrorKind.INVALID_INPUT, "one byte per token"),
    (
        submitted([7], more_outputs=[pb.OUTPUT_VECTOR]),
        *("more_outputs", ErrorKind.INVALID_INPUT, "names an output twice"),
    ),
    (submitted([7], more_outputs=[pb.OUTPUT_COLBERT_VECTORS]), "", ErrorKind.WRONG_TASK, "another kind"),
    (submitted([7], dimensions=385), "dimensions", ErrorKind.INVALID_INPUT, "at most 384"),
    (
        submitted([7], output=pb.OUTPUT_TOKEN_VECTORS, dimensions=8),
        *("dimensions", ErrorKind.INVALID_INPUT, "dimensions has no effect on the output token vectors"),
    ),
    (
        submitted([7], output=pb.OUTPUT_TOKEN_VECTORS, skip_normalization=True),
        *("skip_normalization", ErrorKind.INVALID_INPUT, "no effect on the output token vectors"),
    ),
    (submitted(*[[7]] * 9), "lengths", ErrorKind.TOO_LARGE, "9 sequences is too large: the engine's queue holds 8"),
    (submitted([7], data_type=99), "data_type", ErrorKind.INVALID_INPUT, "no data type 99"),
    (submitted([7], output=pb.OUTPUT_LOGITS), "", ErrorKind.WRONG_TASK, "another kind: embedder"),
    (submitted([7], task="cats"), "task", ErrorKind.INVALID_INPUT, "there is no task 'cats'"),
]


@pytest.mark.parametrize(("bad", "field", "kind", "words"), BAD_SUBMISSIONS)
def test_a_bad_submission_is_refused_and_the_field_named(
    bad: pb.Sequences, field: str, kind: ErrorKind, words: str
) -> None:
    checks = Checks(EMBEDDER, frozenset({Output.VECTOR, Output.TOKEN_VECTORS}), sequences_max=8)
    with pytest.raises(HeddleError) as caught:
        checks.check(bad)
    assert (caught.value.kind, caught.value.field) == (kind, field)
    assert words in caught.value.message


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
def test_an_output_accepts_only_its_data_types(output: Output, refused: list[str]) -> None:
    for data_type in tensor_pb2.DataType.keys():  # noqa: SIM118 - an enum of protobuf is no mapping
        number = tensor_pb2.DataType.Value(data_type)
        if data_type.removeprefix("DATA_TYPE_") not in refused:
            check_fields(Options(output), number)
            continue
        with pytest.raises(HeddleError) as caught:
            check_fields(Options(output), number)
        assert (caught.value.kind, caught.value.field) == (ErrorKind.INVALID_INPUT, "data_type")
