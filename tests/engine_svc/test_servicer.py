"""The engine pod as callers with token ids see it: stream and unary, checks, and errors that stay with their item."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedModel,
)

from engine_svc.backends.loading import load_backend
from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.batch import Output, PackedBatch
from engine_svc.servicer import check_wishes
from engine_svc.settings import EngineSettings
from heddle import tensors
from heddle.checkpoint import Checkpoint
from heddle.rpc.channels import open_channel
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2 as pb
from heddle.v1 import error_pb2, tensor_pb2
from heddle.v1.engine_pb2_grpc import EngineServiceStub
from tests.checkpoints import VOCABULARY_SIZE, write_bert, write_old_modules
from tests.cluster import engine_pod


def sequence(*token_ids: int, **wishes: object) -> pb.Sequence:
    return pb.Sequence(token_ids=np.array(token_ids, "<u4").tobytes(), **wishes)  # type: ignore[arg-type]


def any_stub(channel: grpc.aio.Channel) -> Any:
    """The generated types are those of the synchronous API."""
    return EngineServiceStub(channel)


NAN_TOKEN = sequence(777).token_ids


class Brittle:
    """Fails on token 666, gives NaN for token 777."""

    outputs, data_type = SimulatedBackend().outputs, "float32"

    def run(self, batch: PackedBatch, cores: int = 0) -> Sequence[npt.NDArray[np.float32]]:
        if 666 in batch.token_ids:
            raise RuntimeError("the device does not like that token")
        broken = np.full(384, np.nan, np.float32)
        arrays = zip(batch.sequences, SimulatedBackend().run(batch), strict=True)
        return [broken if one.token_ids == NAN_TOKEN else array for one, array in arrays]

    def close(self) -> None:
        pass


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[Any]:
    async with engine_pod(tmp_path) as address, open_channel(address) as channel:
        yield any_stub(channel)


BAD_SEQUENCES = [
    (pb.Sequence(), error_pb2.ERROR_KIND_EMPTY_INPUT, "at least one token"),
    (pb.Sequence(token_ids=b"12345"), error_pb2.ERROR_KIND_INVALID_INPUT, "multiple of 4"),
    (sequence(30522), error_pb2.ERROR_KIND_INVALID_INPUT, "outside the vocabulary"),
    (sequence(*[7] * 257), error_pb2.ERROR_KIND_TOO_LARGE, "longer than the model's 256"),
    (sequence(7, 8, type_ids=b"\0"), error_pb2.ERROR_KIND_INVALID_INPUT, "one byte per token"),
    (sequence(7, more_outputs=[pb.OUTPUT_VECTOR]), error_pb2.ERROR_KIND_INVALID_INPUT, "names an output twice"),
    (sequence(7, more_outputs=[pb.OUTPUT_COLBERT_VECTORS]), error_pb2.ERROR_KIND_WRONG_TASK, "another kind"),
    (sequence(7, type_ids=b"\2"), error_pb2.ERROR_KIND_INVALID_INPUT, "0 or 1"),
    (sequence(7, dimensions=385), error_pb2.ERROR_KIND_INVALID_INPUT, "at most 384"),
    (
        sequence(7, output=pb.OUTPUT_TOKEN_VECTORS, dimensions=8),
        *(error_pb2.ERROR_KIND_INVALID_INPUT, "dimensions has no effect on the output token vectors"),
    ),
    (
        sequence(7, output=pb.OUTPUT_TOKEN_VECTORS, skip_normalization=True),
        *(error_pb2.ERROR_KIND_INVALID_INPUT, "skip_normalization has no effect on the output token vectors"),
    ),
    (sequence(7, data_type=99), error_pb2.ERROR_KIND_INVALID_INPUT, "no data type 99"),
    (sequence(7, output=pb.OUTPUT_LOGITS), error_pb2.ERROR_KIND_WRONG_TASK, "another kind: embedder"),
]


@pytest.mark.parametrize(("bad", "kind", "words"), BAD_SEQUENCES)
async def test_a_bad_sequence_is_refused_alone(
    stub: Any, bad: pb.Sequence, kind: error_pb2.ErrorKind, words: str
) -> None:
    response = await stub.Encode(pb.EncodeRequest(sequences=[sequence(7), bad, sequence(8)]))
    assert [outcome.WhichOneof("result") for outcome in response.outcomes] == ["tensor", "error", "tensor"]
    assert response.outcomes[1].error.kind == kind
    assert words in response.outcomes[1].error.message


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
        message = pb.Sequence(data_type=data_type)
        if data_type.removeprefix("DATA_TYPE_") not in refused:
            check_wishes(message, (output,))
            continue
        with pytest.raises(HeddleError) as caught:
            check_wishes(message, (output,))
        assert (caught.value.kind, caught.value.field) == (ErrorKind.INVALID_INPUT, "data_type")


async def test_several_outputs_of_a_sequence_come_in_the_order_in_which_they_were_asked_for(stub: Any) -> None:
    wanted = sequence(7, 8, 9, output=pb.OUTPUT_TOKEN_VECTORS, more_outputs=[pb.OUTPUT_VECTOR], dimensions=4)
    both, first, second = (
        await stub.Encode(
            pb.EncodeRequest(
                sequences=[
                    wanted,
                    sequence(7, 8, 9, output=pb.OUTPUT_TOKEN_VECTORS),
                    sequence(7, 8, 9, dimensions=4),
                ]
            )
        )
    ).outcomes
    assert list(both.tensor.shape) == [3, 384]
    assert both.tensor == first.tensor
    assert [result.tensor for result in both.more] == [second.tensor]


async def test_outcomes_come_in_the_order_of_the_sequences(stub: Any) -> None:
    sequences = [sequence(number) for number in range(100)]
    together = (await stub.Encode(pb.EncodeRequest(sequences=sequences))).outcomes
    assert [outcome.id for outcome in together] == list(range(100))
    for index in (0, 57, 99):
        alone = (await stub.Encode(pb.EncodeRequest(sequences=[sequences[index]]))).outcomes[0]
        assert alone.tensor == together[index].tensor


async def test_vectors_are_cut_normalised_and_encoded_as_asked(stub: Any) -> None:
    wishes = [
        sequence(7, dimensions=16),
        sequence(7, skip_normalization=True),
        sequence(7, data_type=tensor_pb2.DATA_TYPE_BFLOAT16),
    ]
    cut, raw, short = (
        tensors.from_proto(outcome.tensor)
        for outcome in (await stub.Encode(pb.EncodeRequest(sequences=wishes))).outcomes
    )
    assert cut.shape == (16,)
    assert np.linalg.norm(cut) == pytest.approx(1)
    assert np.allclose(cut, raw[:16] / np.linalg.norm(raw[:16]), atol=1e-6)
    assert np.allclose(short, raw / np.linalg.norm(raw), atol=1e-2)


async def test_unary_caller_with_another_fingerprint_is_refused(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Encode(pb.EncodeRequest(sequences=[sequence(7)], tokenizer_fingerprint="f" * 64))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "do not belong together" in str(caught.value.details())


async def test_stream_of_another_fingerprint_is_refused(stub: Any) -> None:
    call = stub.Infer()
    await call.write(pb.EngineServiceInferRequest(tokenizer_fingerprint="f" * 64))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert HeddleError.from_rpc_error(caught.value).kind is ErrorKind.MISMATCH


@pytest.mark.parametrize("backend", ["simulated", "torch"])
@pytest.mark.parametrize(
    ("model_class", "modules", "shape"),
    [
        (BertModel, [], [32]),
        (BertForSequenceClassification, [], [5]),
        (BertForTokenClassification, [], [3, 5]),
        (BertForMaskedLM, ["MLMTransformer", "SpladePooling"], None),
    ],
)
async def test_what_is_not_said_is_what_the_model_is_for(
    tmp_path: Path,
    backend: Literal["torch", "simulated"],
    model_class: type[PreTrainedModel],
    modules: list[str],
    shape: list[int] | None,
) -> None:
    write_bert(tmp_path, model_class, num_labels=5)
    if modules:
        write_old_modules(tmp_path, modules)
    loaded = load_backend(EngineSettings(backend=backend), Checkpoint.read(tmp_path))
    async with engine_pod(tmp_path, loaded, model=str(tmp_path)) as address, open_channel(address) as channel:
        [outcome] = (await any_stub(channel).Encode(pb.EncodeRequest(sequences=[sequence(7, 8, 9)]))).outcomes
    if shape is None:
        assert outcome.sparse.dimension == VOCABULARY_SIZE
        assert 0 < len(outcome.sparse.indices) == len(outcome.sparse.values)
    else:
        assert list(outcome.tensor.shape) == shape


async def test_a_frame_is_answered_item_by_item(stub: Any) -> None:
    model = (await stub.GetModel(pb.EngineServiceGetModelRequest())).model
    call = stub.Infer()
    items = [pb.Submission(id=number, sequence=sequence(number)) for number in (5, 30522, 9)]
    await call.write(pb.EngineServiceInferRequest(tokenizer_fingerprint=model.tokenizer_fingerprint, items=items))
    results: dict[int, str | None] = {}
    while len(results) < 3:
        frame = await asyncio.wait_for(call.read(), 5)
        results |= {outcome.id: outcome.WhichOneof("result") for outcome in frame.outcomes}
    assert results == {5: "tensor", 30522: "error", 9: "tensor"}
    await call.done_writing()


async def test_what_the_device_cannot_do_with_one_sequence_stays_with_that_one(tmp_path: Path) -> None:
    async with engine_pod(tmp_path, Brittle()) as address, open_channel(address) as channel:
        request = pb.EncodeRequest(sequences=[sequence(1), sequence(666), sequence(2), sequence(777)])
        outcomes = (await any_stub(channel).Encode(request)).outcomes
    assert [outcome.WhichOneof("result") for outcome in outcomes] == ["tensor", "error", "tensor", "error"]
    assert outcomes[1].error == error_pb2.Error(kind=error_pb2.ERROR_KIND_INTERNAL, message="internal error")
    assert outcomes[3].error.kind == error_pb2.ERROR_KIND_BAD_OUTPUT


async def test_what_the_queue_has_no_room_for_is_refused_at_once(tmp_path: Path) -> None:
    settings: Any = {"queue_items_max": 4, "batch_items_max": 1, "simulated_fixed_us": 200_000}
    async with engine_pod(tmp_path, **settings) as address, open_channel(address) as channel:
        sequences = [sequence(number) for number in range(10)]
        outcomes = (await any_stub(channel).Encode(pb.EncodeRequest(sequences=sequences))).outcomes
    refused = [outcome.error for outcome in outcomes if outcome.WhichOneof("result") == "error"]
    assert len(refused) >= 5
    assert {error.kind for error in refused} == {error_pb2.ERROR_KIND_OVERLOADED}
    assert all(error.retry_after_ms for error in refused)
