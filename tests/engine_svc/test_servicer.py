"""The engine pod for callers with token ids: stream and unary calls, and errors that stay with their sequence."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np
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
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
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
from tests.messages import submitted


def any_stub(channel: grpc.aio.Channel) -> Any:
    """The generated types are those of the synchronous API."""
    return EngineServiceStub(channel)


class Brittle:
    """Fails on token 666, gives NaN for token 777."""

    outputs, data_type = SimulatedBackend().outputs, "float32"

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        if 666 in batch.token_ids:
            raise RuntimeError("the device does not like that token")
        bad = batch.token_ids[batch.cu_seqlens[:-1]] == 777
        vectors = SimulatedBackend().run(batch)[Output.VECTOR].values
        return {Output.VECTOR: Rows(np.where(bad[:, None], np.float32("nan"), vectors))}

    def close(self) -> None:
        pass


async def encode(stub: Any, sequences: pb.Sequences) -> pb.Outcome:
    return (await stub.Encode(pb.EncodeRequest(sequences=sequences))).outcome  # type: ignore[no-any-return]


def failures(outcome: pb.Outcome) -> dict[int, error_pb2.ErrorKind]:
    return {each.index: each.error.kind for each in outcome.errors}


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[Any]:
    async with engine_pod(tmp_path) as address, open_channel(address) as channel:
        yield any_stub(channel)


BAD_SEQUENCES = [
    ([], error_pb2.ERROR_KIND_EMPTY_INPUT, "at least one token"),
    ([7, 30522, 9], error_pb2.ERROR_KIND_INVALID_INPUT, "token id 30522 is outside the vocabulary"),
    ([7] * 257, error_pb2.ERROR_KIND_TOO_LARGE, "257 tokens is longer than the model's 256"),
]


@pytest.mark.parametrize(("bad", "kind", "words"), BAD_SEQUENCES)
async def test_a_bad_sequence_is_refused_alone(
    stub: Any, bad: list[int], kind: error_pb2.ErrorKind, words: str
) -> None:
    outcome = await encode(stub, submitted([7], bad, [8], bad, [9]))
    assert failures(outcome) == {1: kind, 3: kind}
    assert words in outcome.errors[0].error.message
    assert outcome.errors[0].error.field == "token_ids"
    vectors = tensors.from_proto(outcome.results[0].tensor)
    good = tensors.from_proto((await encode(stub, submitted([7], [8], [9]))).results[0].tensor)
    assert np.array_equal(vectors[[0, 2, 4]], good)
    assert not vectors[[1, 3]].any()


async def test_a_bad_sequence_has_no_rows_where_others_have_several(stub: Any) -> None:
    outcome = await encode(stub, submitted([7, 8], [], [9], output=pb.OUTPUT_TOKEN_VECTORS))
    tokens = outcome.results[0].tokens
    assert failures(outcome) == {1: error_pb2.ERROR_KIND_EMPTY_INPUT}
    assert np.frombuffer(tokens.lengths, "<u4").tolist() == [2, 0, 1]
    assert list(tokens.tensor.shape) == [3, 384]


async def test_a_submission_with_only_bad_sequences_has_an_error_for_each(stub: Any) -> None:
    outcome = await encode(stub, submitted([30522], [], more_outputs=[pb.OUTPUT_TOKEN_VECTORS]))
    assert failures(outcome) == {0: error_pb2.ERROR_KIND_INVALID_INPUT, 1: error_pb2.ERROR_KIND_EMPTY_INPUT}
    assert [result.tensor.shape[0] for result in outcome.results] == [2, 2]


async def test_a_bad_type_id_is_an_error_of_its_sequence(stub: Any) -> None:
    outcome = await encode(stub, submitted([7, 8], [9], type_ids=b"\0\0\2"))
    assert failures(outcome) == {1: error_pb2.ERROR_KIND_INVALID_INPUT}
    assert "0 or 1" in outcome.errors[0].error.message


async def test_a_bad_submission_is_refused_and_the_field_named(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await encode(stub, submitted([7], dimensions=385))
    error = HeddleError.from_rpc_error(caught.value)
    assert (error.kind, error.field) == (ErrorKind.INVALID_INPUT, "dimensions")


async def test_a_submission_of_more_sequences_than_the_queue_holds_is_refused(tmp_path: Path) -> None:
    async with engine_pod(tmp_path, queue_items_max=4) as address, open_channel(address) as channel:
        assert not (await encode(any_stub(channel), submitted(*[[7]] * 4))).errors
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await encode(any_stub(channel), submitted(*[[7]] * 5))
    error = HeddleError.from_rpc_error(caught.value)
    assert (error.kind, error.field) == (ErrorKind.TOO_LARGE, "lengths")
    assert "5 sequences is too large: the engine's queue holds 4" in error.message


async def test_calls_beyond_their_bytes_are_refused_and_counted_until_they_are_over(tmp_path: Path) -> None:
    pod = engine_pod(tmp_path, simulated_fixed_us=300_000, calls_bytes_max=10_000)
    async with pod as address, open_channel(address) as channel:
        stub = any_stub(channel)
        first = asyncio.create_task(encode(stub, submitted(*[[7] * 100] * 20)))
        await asyncio.sleep(0.1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await encode(stub, submitted(*[[7] * 100] * 20))
        error = HeddleError.from_rpc_error(caught.value)
        assert error.kind is ErrorKind.OVERLOADED
        assert error.retry_after_ms
        assert (await first).results[0].tensor.shape == [20, 384]  # more bytes, but it is alone
        assert (await encode(stub, submitted(*[[7] * 100] * 20))).results


async def test_several_outputs_come_in_the_requested_order(stub: Any) -> None:
    ids, options = [[7, 8, 9], [10]], {"output": pb.OUTPUT_TOKEN_VECTORS}
    both = await encode(stub, submitted(*ids, **options, more_outputs=[pb.OUTPUT_VECTOR], dimensions=4))
    first = await encode(stub, submitted(*ids, **options))
    second = await encode(stub, submitted(*ids, dimensions=4))
    assert list(first.results[0].tokens.tensor.shape) == [4, 384]
    assert list(both.results) == [*first.results, *second.results]


async def test_rows_come_in_the_order_of_the_sequences(stub: Any) -> None:
    together = tensors.from_proto(
        (await encode(stub, submitted(*([number] for number in range(100))))).results[0].tensor
    )
    assert together.shape == (100, 384)
    for index in (0, 57, 99):
        alone = tensors.from_proto((await encode(stub, submitted([index]))).results[0].tensor)
        assert np.array_equal(alone[0], together[index])


async def test_a_submission_larger_than_a_batch_is_answered_once_and_whole(tmp_path: Path) -> None:
    ids = [[number] * (1 + number % 7) for number in range(60)]
    limits: Any = {"batch_tokens_max": 16, "batch_items_max": 4}
    async with engine_pod(tmp_path) as address, open_channel(address) as channel:
        whole = await encode(any_stub(channel), submitted(*ids, output=pb.OUTPUT_TOKEN_VECTORS))
    async with engine_pod(tmp_path, **limits) as address, open_channel(address) as channel:
        parts = await encode(any_stub(channel), submitted(*ids, output=pb.OUTPUT_TOKEN_VECTORS))
    assert parts.results == whole.results


async def test_vectors_are_truncated_normalised_and_encoded_as_requested(stub: Any) -> None:
    wishes: list[Any] = [
        {"dimensions": 16},
        {"skip_normalization": True},
        {"data_type": tensor_pb2.DATA_TYPE_BFLOAT16},
    ]
    cut, raw, short = [
        tensors.from_proto((await encode(stub, submitted([7], **wish))).results[0].tensor)[0] for wish in wishes
    ]
    assert cut.shape == (16,)
    assert np.linalg.norm(cut) == pytest.approx(1)
    assert np.allclose(cut, raw[:16] / np.linalg.norm(raw[:16]), atol=1e-6)
    assert np.allclose(short, raw / np.linalg.norm(raw), atol=1e-2)


async def test_unary_caller_with_another_fingerprint_is_refused(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Encode(pb.EncodeRequest(sequences=submitted([7]), tokenizer_fingerprint="f" * 64))
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
        (BertModel, [], [1, 32]),
        (BertForSequenceClassification, [], [1, 5]),
        (BertForTokenClassification, [], [3, 5]),
        (BertForMaskedLM, ["MLMTransformer", "SpladePooling"], None),
    ],
)
async def test_the_default_output_is_that_of_the_model(
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
        [result] = (await encode(any_stub(channel), submitted([7, 8, 9]))).results
    if shape is None:
        assert result.sparse.dimension == VOCABULARY_SIZE
        assert 0 < len(result.sparse.indices) == len(result.sparse.values)
    else:
        assert list((result.tensor if result.HasField("tensor") else result.tokens.tensor).shape) == shape


async def test_a_frame_is_answered_submission_by_submission(stub: Any) -> None:
    model = (await stub.GetModel(pb.EngineServiceGetModelRequest())).model
    call = stub.Infer()
    items = [
        pb.Submission(id=5, sequences=submitted([5], [6])),
        pb.Submission(id=6, sequences=submitted([30522], [6])),
        pb.Submission(id=7, sequences=submitted([5], dimensions=9999)),
    ]
    await call.write(pb.EngineServiceInferRequest(tokenizer_fingerprint=model.tokenizer_fingerprint, items=items))
    outcomes: dict[int, pb.Outcome] = {}
    while len(outcomes) < 3:
        frame = await asyncio.wait_for(call.read(), 5)
        outcomes |= {outcome.id: outcome for outcome in frame.outcomes}
    assert [list(outcomes[number].results[0].tensor.shape) for number in (5, 6)] == [[2, 384]] * 2
    assert [failures(outcomes[number]) for number in (5, 6)] == [{}, {0: error_pb2.ERROR_KIND_INVALID_INPUT}]
    assert (outcomes[7].error.field, len(outcomes[7].results)) == ("dimensions", 0)
    await call.done_writing()


async def test_a_failure_of_the_device_stays_with_its_sequence(tmp_path: Path) -> None:
    async with engine_pod(tmp_path, Brittle()) as address, open_channel(address) as channel:
        outcome = await encode(any_stub(channel), submitted([1], [30522], [666], [2], [777]))
        good = await encode(any_stub(channel), submitted([1], [2]))
    assert failures(outcome) == {
        1: error_pb2.ERROR_KIND_INVALID_INPUT,
        2: error_pb2.ERROR_KIND_INTERNAL,
        4: error_pb2.ERROR_KIND_BAD_OUTPUT,
    }
    assert outcome.errors[1].error == error_pb2.Error(kind=error_pb2.ERROR_KIND_INTERNAL, message="internal error")
    vectors = tensors.from_proto(outcome.results[0].tensor)
    assert np.array_equal(vectors[[0, 3]], tensors.from_proto(good.results[0].tensor))
    assert not vectors[[1, 2, 4]].any()


async def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    settings: Any = {"queue_items_max": 4, "batch_items_max": 1, "simulated_fixed_us": 200_000}
    async with engine_pod(tmp_path, **settings) as address, open_channel(address) as channel:
        calls = (encode(any_stub(channel), submitted([number], [number])) for number in range(8))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [HeddleError.from_rpc_error(one) for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
    assert len(refused) >= 4
    assert {error.kind for error in refused} == {ErrorKind.OVERLOADED}
    assert all(error.retry_after_ms for error in refused)
