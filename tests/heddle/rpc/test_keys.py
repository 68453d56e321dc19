"""API keys on gRPC: which unary calls and streams are admitted, and with which priority."""

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from heddle.client import CallOptions, Client, UnaryClient
from heddle.rpc.channels import open_channel
from heddle.rpc.credentials import PLAINTEXT, Access, Metadata
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.keys import ApiKeys
from heddle.rpc.listening import usable_port
from heddle.rpc.pool import Pool, PoolLimits
from heddle.rpc.settings import ConfigurationError
from heddle.v1 import engine_pb2, engine_pb2_grpc
from heddle.v1 import inference_pb2 as pb
from tests.cluster import engine_pod, tokenizer_pod
from tests.heddle.rpc.pods import EnginePod, Held, ask, eventually, protocol, serving
from tests.heddle.rpc.running_server import NAME, health_of


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    file = tmp_path / "keys"
    file.write_text(f"nightly sha256:{hashlib.sha256(b'sk-nightly').hexdigest()} 5\n")
    return ApiKeys.load(("sk-first",), file)


@pytest.mark.parametrize("authorization", ["Bearer sk-first", "bearer sk-nightly", "Api-Key sk-first"])
async def test_a_valid_key_admits_streams_and_calls(authorization: str, keys: ApiKeys) -> None:
    metadata = (("authorization", authorization),)
    async with serving(EnginePod(), keys=keys) as server, open_channel(server.addresses[0]) as channel:
        stub: Any = engine_pb2_grpc.EngineServiceStub(channel)
        call = stub.Infer(metadata=metadata)
        await call.write(engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint="fingerprint"))
        assert isinstance(await call.read(), engine_pb2.EngineServiceInferResponse)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetModel(engine_pb2.EngineServiceGetModelRequest(), metadata=metadata)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED  # it is the test's pod that has no such method


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", "Basic sk-first", "sk-first"])
async def test_without_a_valid_key_only_health_answers(authorization: str | None, keys: ApiKeys) -> None:
    metadata = () if authorization is None else (("authorization", authorization),)
    async with serving(EnginePod(), keys=keys) as server, open_channel(server.addresses[0]) as channel:
        assert await health_of(channel, NAME) == HealthCheckResponse.SERVING
        stub: Any = engine_pb2_grpc.EngineServiceStub(channel)
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        listing = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        for call in (
            stub.GetModel(engine_pb2.EngineServiceGetModelRequest(), metadata=metadata),
            stub.Encode(engine_pb2.EncodeRequest(), metadata=metadata),
            stub.Infer(metadata=metadata).read(),
            reflection.ServerReflectionInfo(listing, metadata=metadata).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_pool_logs_its_wrong_key_once_and_does_not_blame_its_callers(
    keys: ApiKeys, caplog: pytest.LogCaptureFixture
) -> None:

    async def handshake(channel: grpc.aio.Channel, metadata: Metadata) -> engine_pb2.EngineServiceInferRequest:
        """Makes a call before the stream is opened, as all clients do."""
        await engine_pb2_grpc.EngineServiceStub(channel).Encode(engine_pb2.EncodeRequest(), metadata=metadata)
        return engine_pb2.EngineServiceInferRequest()

    async with serving(EnginePod(), keys=keys) as server:
        target = server.addresses[0]
        wrong, limits = Access(key="wrong"), PoolLimits(no_pod_s_max=0.3)
        pool = Pool((target,), replace(protocol(), handshake=handshake), access=wrong, limits=limits)
        await pool.start()
        with pytest.raises(HeddleError, match=r"no pod can be reached .*: the key is not valid") as raised:
            await asyncio.wait_for(ask(pool, b"1234")[0], 5)
        assert raised.value.kind is ErrorKind.UNAVAILABLE
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert errors == [f"no stream to {target}: the key is not valid"]
        await pool.close()


async def test_a_key_in_a_file_is_read_again_when_it_changes(
    keys: ApiKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heddle.rpc import pod as pod_module

    monkeypatch.setattr(pod_module, "HEARTBEAT_S", 0.05)
    file = tmp_path / "key"
    file.write_text("sk-first\n")
    changes: list[bool] = []
    async with serving(EnginePod(), keys=keys) as server:
        target = server.addresses[0]
        pool = Pool((target,), protocol(), access=Access(key_file=file), on_change=changes.append)
        await pool.start()
        assert await asyncio.wait_for(ask(pool, b"1234")[0], 5) == b"1234"
        file.write_text("sk-nightly\n")
        await eventually(lambda: changes[:3] == [True, False, True])
        assert await asyncio.wait_for(ask(pool, b"1234")[0], 5) == b"1234"
        await pool.close()


async def test_a_key_gets_no_better_priority_than_its_own(keys: ApiKeys) -> None:
    held = Held()
    async with serving(EnginePod(held.submit), keys=keys) as server:
        target = server.addresses[0]
        for key, expected in (("sk-nightly", [5, 7]), ("sk-first", [0, 7])):
            pool = Pool((target,), protocol(), access=Access(key=key))
            await pool.start()
            await pool.wait_ready()
            for priority in (0, 7):
                item = engine_pb2.Submission()
                item.context.priority = priority
                pool.submit(item, float("inf"), lambda outcome: None)
            await eventually(lambda: len(held.items) == 2)
            assert sorted(item.context.priority for item, _, _ in held.items.values()) == expected
            held.items.clear()
            await pool.close()


async def test_a_socket_file_needs_no_key(keys: ApiKeys, tmp_path: Path) -> None:
    async with serving(EnginePod(), f"unix:{tmp_path}/socket", keys=keys) as server:
        target = server.addresses[0]
        pool = Pool((target,), protocol())
        await pool.start()
        assert await asyncio.wait_for(ask(pool, b"1234")[0], 5) == b"1234"
        await pool.close()


async def test_clients_of_a_tokenizer_pod_show_their_key(tmp_path: Path) -> None:
    """The tokenizer pod sends its own key to its engine."""
    request = pb.EmbedRequest(inputs=[pb.Input(text="warp")])
    first, second = (f"127.0.0.1:{usable_port('127.0.0.1', 0)}" for _ in range(2))
    async with (
        engine_pod(tmp_path, address=first, api_keys=("inner",)) as engine,
        tokenizer_pod(tmp_path, engine, address=second, api_keys=("outer",), engines_key="inner") as target,
    ):
        async with Client(target, access=Access(key="outer")) as client:
            assert (await client.vectors(["warp"])).shape == (1, 384)
        async with UnaryClient(target, access=Access(key="outer")) as unary:
            assert (await unary.embed(request)).embeddings.data
        for access in (PLAINTEXT, Access(key="inner")):
            async with UnaryClient(target, access=access) as unary:
                with pytest.raises(HeddleError) as raised:
                    await unary.embed(request, CallOptions(timeout_s=5))
            assert raised.value.kind is ErrorKind.UNAUTHENTICATED


def test_a_file_without_keys_is_the_operators_mistake(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# nobody\n")
    with pytest.raises(ConfigurationError, match="holds no key"):
        ApiKeys.load((), file)


def test_a_changed_file_counts_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("heddle.rpc.keys.FILE_CHECK_S", 0.0)
    file = tmp_path / "keys"
    file.write_text("one sk-one\n")
    keys = ApiKeys.load(("sk-stated",), file)
    file.write_text("another sk-another\n")
    assert keys.find("Bearer sk-another")
    assert keys.find("Bearer sk-stated")
    with pytest.raises(HeddleError, match="not valid"):
        keys.find("Bearer sk-one")
    file.write_text("half-a-line")
    assert keys.find("Bearer sk-another")
    assert "keeping the old keys" in caplog.text


async def test_an_open_stream_ends_when_its_key_is_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heddle.rpc.keys.FILE_CHECK_S", 0.0)
    file = tmp_path / "keys"
    file.write_text("one sk-one\n")
    async with serving(EnginePod(), keys=ApiKeys.load((), file)) as server:
        target = server.addresses[0]
        pool = Pool((target,), protocol(), limits=PoolLimits(no_pod_s_max=0.3), access=Access(key="sk-one"))
        await pool.start()
        assert await asyncio.wait_for(ask(pool, b"1234")[0], 5) == b"1234"
        file.write_text("another sk-another\n")
        with pytest.raises(HeddleError, match="the key is not valid"):
            await asyncio.wait_for(ask(pool, b"1234")[0], 5)
        await pool.close()
