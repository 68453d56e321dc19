"""The calls that reach a handler, and the errors that reach the caller."""

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.interceptor import Interceptor
from heddle.telemetry.logs import request_id
from heddle.v1 import engine_pb2, engine_pb2_grpc
from tests.heddle.rpc.running_server import NAME, failure, running_server


async def test_heddle_error_arrives_as_itself() -> None:
    raised = HeddleError(ErrorKind.TOO_LARGE, "513 tokens, 512 are allowed 🧵", field="inputs", retry_after_ms=5)

    async def encode() -> None:
        raise raised

    async with running_server(encode) as running:
        status = await failure(running.stub.Encode(engine_pb2.EncodeRequest()))
        assert (status.code(), status.details()) == (grpc.StatusCode.INVALID_ARGUMENT, raised.message)
        assert vars(HeddleError.from_rpc_error(status)) == vars(raised)


async def test_clients_of_other_makes_are_told_when_to_retry() -> None:
    async def encode() -> None:
        raise HeddleError(ErrorKind.OVERLOADED, "not now", retry_after_ms=1250)

    async with running_server(encode) as running:
        error = await failure(running.stub.Encode(engine_pb2.EncodeRequest()))
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, info.retry_delay.ToMilliseconds()) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], 1250)


async def test_a_message_longer_than_metadata_may_be_is_clipped() -> None:
    async def encode() -> None:
        raise HeddleError(ErrorKind.INVALID_INPUT, "🧵" * 100_000)

    async with running_server(encode) as running:
        status = await failure(running.stub.Encode(engine_pb2.EncodeRequest()))
        assert status.details() == "🧵" * 250


@pytest.mark.parametrize("method", ["Encode", "Infer"])
async def test_a_bug_is_internal_to_the_caller_and_a_traceback_in_the_log(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def encode() -> None:
        raise KeyError("secret path")

    async with running_server(encode) as running:
        if method == "Encode":
            status = await failure(running.stub.Encode(engine_pb2.EncodeRequest()))
        else:
            call = running.stub.Infer(iter([]))
            assert await call.read() == engine_pb2.EngineServiceInferResponse()
            status = await failure(call.read())
    assert (status.code(), status.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "secret path" in caplog.text


async def test_a_missing_method_is_unimplemented() -> None:
    async with running_server() as running:
        status = await failure(running.stub.GetModel(engine_pb2.EngineServiceGetModelRequest()))
        assert (status.code(), status.details()) == (
            grpc.StatusCode.UNIMPLEMENTED,
            "GetModel is not implemented by this version",
        )


async def test_a_caller_that_hangs_up_cancels_its_handler() -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def encode() -> None:
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with running_server(encode) as running:
        call = running.stub.Encode(engine_pb2.EncodeRequest())
        await entered.wait()
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 5)
        calls = running.server.calls
    assert sum(calls["/heddle.v1.EngineService/Encode", "cancelled"].counts) == 1


async def test_logs_carry_the_callers_request_id() -> None:
    seen: list[str] = []

    async def encode() -> None:
        seen.append(request_id.get())

    async with running_server(encode) as running:
        await running.stub.Encode(engine_pb2.EncodeRequest(), metadata=[("x-request-id", "abc")])
        await running.stub.Encode(engine_pb2.EncodeRequest())
    assert seen[0] == "abc"
    assert len(seen[1]) == 16


async def test_an_answer_to_a_call_that_no_message_can_carry_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_server() as running:
        monkeypatch.setattr(running.server._interceptor, "answer_bytes_max", 3)
        request = engine_pb2.EncodeRequest(sequences=engine_pb2.Sequences(lengths=bytes(1)))
        status = await failure(running.stub.Encode(request))
        assert HeddleError.from_rpc_error(status).kind is ErrorKind.TOO_LARGE
        assert status.details() == "the answer has 4 bytes, the limit of a message is 3"
        monkeypatch.setattr(running.server._interceptor, "answer_bytes_max", 4)
        assert (await running.stub.Encode(request)).outcome.id == 1


async def test_a_message_that_grpc_refuses_is_too_large_to_its_sender() -> None:
    """Not OVERLOADED, although gRPC uses that status: sending it again would not help."""
    async with running_server() as running:
        options = [("grpc.max_send_message_length", 9)]
        async with grpc.aio.insecure_channel(running.server.addresses[0], options=options) as channel:
            stub: Any = engine_pb2_grpc.EngineServiceStub(channel)
            status = await failure(stub.Encode(engine_pb2.EncodeRequest(tokenizer_fingerprint=10 * "f")))
    assert status.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert HeddleError.from_rpc_error(status).kind is ErrorKind.TOO_LARGE


class SpentContext:
    def time_remaining(self) -> float:
        return 0.0


async def test_a_call_with_an_expired_deadline_is_refused() -> None:
    interceptor = Interceptor(open_services=frozenset())
    interceptor.ready = True
    context: Any = SpentContext()
    with pytest.raises(HeddleError) as refused:
        interceptor.admit("/heddle.v1.EngineService/Encode", context)
    assert refused.value.kind is ErrorKind.DEADLINE_EXCEEDED


async def test_a_malformed_message_is_invalid_input(caplog: pytest.LogCaptureFixture) -> None:
    async with running_server() as running:
        call: Any = running.channel.unary_unary(f"/{NAME}/Encode")
        error = await failure(call(b"\xff\xff\xff"))
        assert HeddleError.from_rpc_error(error).kind is ErrorKind.INVALID_INPUT
        assert "not a message of this method" in str(error.details())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
