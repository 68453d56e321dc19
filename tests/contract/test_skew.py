"""Pods and pools of this version work with peers of the previous version, and of a made-up next version."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from heddle.rpc.channels import open_channel, server_options
from heddle.rpc.deadlines import NEVER
from heddle.rpc.unary import submit_and_wait
from heddle.v1 import engine_pb2, error_pb2, model_pb2
from heddle.v1 import inference_pb2 as pb
from tests.cluster import engine_pod, tokenizer_pod
from tests.contract.versions import stubs
from tokenizer_svc.engines import Engines

INFERENCE = "heddle.v1.InferenceService"
ENGINE = "heddle.v1.EngineService"
VERSIONS = pytest.mark.parametrize("version", ["previous", "next"])


class Caller:
    """Calls with the message types of another version."""

    def __init__(self, channel: grpc.aio.Channel, version: str) -> None:
        self._channel = channel
        self.types = stubs(version)

    async def call(self, method: str, request: Any, response: str) -> Any:
        serialize = type(request).SerializeToString
        parse = getattr(self.types, response).FromString
        return await self._channel.unary_unary(f"/{method}", serialize, parse)(request)

    def stream(self, service: str) -> Any:
        request = getattr(self.types, f"{service.rpartition('.')[2]}InferRequest")
        response = getattr(self.types, f"{service.rpartition('.')[2]}InferResponse")
        return self._channel.stream_stream(f"/{service}/Infer", request.SerializeToString, response.FromString)()


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    async with engine_pod(tmp_path) as engine, tokenizer_pod(tmp_path, engine) as tokenizer:
        yield tokenizer, engine


def mark(message: Any) -> Any:
    """Sets the field that only the next version has, in the message and in those inside it."""
    if "from_the_future" in message.DESCRIPTOR.fields_by_name:
        message.from_the_future = "?"
    for field, value in message.ListFields():
        if field.message_type and not field.message_type.GetOptions().map_entry:
            for one in value if field.is_repeated else [value]:
                mark(one)
    return message


async def outcomes(stream: Any, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        found += (await stream.read()).outcomes
    return found


@VERSIONS
async def test_unary_calls_of_other_versions_are_answered(pods: tuple[str, str], version: str) -> None:
    async with open_channel(pods[0]) as channel:
        caller = Caller(channel, version)
        types = caller.types
        request = mark(types.EmbedRequest(inputs=[types.Input(text="warp")]))
        response = await caller.call(f"{INFERENCE}/Embed", request, "EmbedResponse")
        assert list(response.embeddings.shape) == [1, 384]
        request = types.InferenceServiceGetModelRequest()
        model = (await caller.call(f"{INFERENCE}/GetModel", request, "InferenceServiceGetModelResponse")).model
        assert model.dimension == 384


@VERSIONS
async def test_streams_of_other_versions_are_answered(pods: tuple[str, str], version: str) -> None:
    async with open_channel(pods[0]) as channel:
        caller = Caller(channel, version)
        types = caller.types
        item = types.InferenceItem(id=1, embed=types.EmbedRequest(inputs=[types.Input(text="warp")]))
        item.context.priority = 3
        stream = caller.stream(INFERENCE)
        await stream.write(mark(types.InferenceServiceInferRequest(items=[item])))
        (outcome,) = await outcomes(stream, 1)
        assert (outcome.id, outcome.WhichOneof("result")) == (1, "embed")


@VERSIONS
async def test_engines_answer_tokenizers_of_other_versions(pods: tuple[str, str], version: str) -> None:
    ids = np.array([101, 2543, 102], "<u4").tobytes()
    async with open_channel(pods[1]) as channel:
        caller = Caller(channel, version)
        types = caller.types
        request = types.EngineServiceGetModelRequest()
        model = (await caller.call(f"{ENGINE}/GetModel", request, "EngineServiceGetModelResponse")).model
        sequences = types.Sequences(token_ids=ids, lengths=np.array([3], "<u4").tobytes())
        frame = types.EngineServiceInferRequest(tokenizer_fingerprint=model.tokenizer_fingerprint)
        frame.items.add(id=7, sequences=sequences)
        stream = caller.stream(ENGINE)
        await stream.write(mark(frame))
        (outcome,) = await outcomes(stream, 1)
        assert (outcome.id, len(outcome.results)) == (7, 1)
        request = mark(types.EncodeRequest(sequences=sequences))
        encoded = await caller.call(f"{ENGINE}/Encode", request, "EncodeResponse")
        assert len(encoded.outcome.results) == 1


async def test_a_request_that_this_version_does_not_know_is_unimplemented_and_harms_no_other(
    pods: tuple[str, str],
) -> None:
    async with open_channel(pods[0]) as channel:
        caller = Caller(channel, "next")
        types = caller.types
        frame = types.InferenceServiceInferRequest()
        frame.items.add(id=1).summarize.model = ""
        frame.items.add(id=2).tokenize.inputs.append("warp")
        stream = caller.stream(INFERENCE)
        await stream.write(frame)
        unknown, known = sorted(await outcomes(stream, 2), key=lambda outcome: outcome.id)
        assert unknown.error.kind == error_pb2.ERROR_KIND_UNIMPLEMENTED
        assert known.WhichOneof("result") == "tokenize"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.call(f"{INFERENCE}/Summarize", types.DecodeRequest(), "DecodeResponse")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_option_that_this_version_does_not_know_is_refused_and_not_guessed(pods: tuple[str, str]) -> None:
    lengths = np.array([1], "<u4").tobytes()
    unknown_output = engine_pb2.Sequences(token_ids=bytes(4), lengths=lengths, output=99)  # type: ignore[arg-type]
    unknown_type = pb.EmbedRequest(inputs=[pb.Input(text="warp")], data_type=99)  # type: ignore[arg-type]
    async with open_channel(pods[0]) as tokenizer, open_channel(pods[1]) as engine:
        for channel, method, request, status in (
            (tokenizer, f"{INFERENCE}/Embed", unknown_type, grpc.StatusCode.INVALID_ARGUMENT),
            (
                engine,
                f"{ENGINE}/Encode",
                engine_pb2.EncodeRequest(sequences=unknown_output),
                grpc.StatusCode.FAILED_PRECONDITION,
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await Caller(channel, "next").call(method, request, "Error")
            assert refused.value.code() is status


class EngineOf:
    """A pod with the stubs of another version. It answers each sequence with its token ids as a vector."""

    def __init__(self, version: str) -> None:
        types = stubs(version)

        async def get_model(request: Any, context: Any) -> Any:
            return types.EngineServiceGetModelResponse(model=types.Model(tokenizer_fingerprint="f"))

        async def infer(requests: Any, context: Any) -> Any:
            yield types.EngineServiceInferResponse(load=types.Load())
            async for frame in requests:
                outcomes = []
                for item in frame.items:
                    tensor = types.Tensor(data=item.sequences.token_ids)
                    outcomes.append(types.Outcome(id=item.id, results=[types.Result(tensor=tensor)]))
                yield mark(types.EngineServiceInferResponse(outcomes=outcomes))

        parse = types.EngineServiceInferRequest.FromString
        methods = {
            "GetModel": grpc.unary_unary_rpc_method_handler(
                get_model,
                types.EngineServiceGetModelRequest.FromString,
                types.EngineServiceGetModelResponse.SerializeToString,
            ),
            "Infer": grpc.stream_stream_rpc_method_handler(
                infer, parse, types.EngineServiceInferResponse.SerializeToString
            ),
        }
        self.server = grpc.aio.server(options=server_options())
        self.server.add_registered_method_handlers(ENGINE, methods)
        self.target = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"


@VERSIONS
async def test_pools_are_answered_by_pods_of_other_versions(version: str) -> None:
    pod = EngineOf(version)
    await pod.server.start()
    engines = Engines((pod.target,), model_pb2.Model(tokenizer_fingerprint="f"))
    await engines.start()
    for size in (4, 4 << 20):  # large outcomes come in pieces from pods that know them
        item = engine_pb2.Submission(sequences=engine_pb2.Sequences(token_ids=bytes(size)))
        outcome = await asyncio.wait_for(submit_and_wait(engines.submit, item, NEVER), 10)
        assert len(outcome.results[0].tensor.data) == size
    await engines.close()
    await pod.server.stop(None)


def test_fields_of_the_next_version_survive_a_passage_through_this_one() -> None:
    later = stubs("next").Error(kind=3, message="too large", from_the_future="advice")
    passed_on = error_pb2.Error.FromString(later.SerializeToString()).SerializeToString()
    assert stubs("next").Error.FromString(passed_on).from_the_future == "advice"
