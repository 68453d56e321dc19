"""A server from its first open port to its exit code, over real sockets and, where signals matter, real processes."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from heddle.rpc.channels import open_channel
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.lifecycle import Server
from heddle.rpc.settings import ConfigurationError
from heddle.v1 import engine_pb2, engine_pb2_grpc
from tests.heddle.rpc import service_process
from tests.heddle.rpc.running_server import NAME, NOT_SERVING, SERVING, failure, health_of, running_server


async def test_server_is_alive_from_the_start_and_ready_after_warm_up() -> None:
    async with running_server(ready=False) as running:
        assert await running.health("") == SERVING
        assert await running.health(NAME) == NOT_SERVING
        await running.until_ready()
        assert await running.health("") == SERVING


async def test_health_of_all_services_is_listed() -> None:
    async with running_server(ready=False) as running:
        stub = health_pb2_grpc.HealthStub(running.channel)

        async def listed() -> dict[str, Any]:
            answer = await stub.List(health_pb2.HealthListRequest())
            return {name: response.status for name, response in answer.statuses.items()}

        assert await listed() == {"": SERVING, NAME: NOT_SERVING}
        await running.until_ready()
        assert await listed() == {"": SERVING, NAME: SERVING}


async def test_calls_during_warm_up_are_refused_with_a_retry_time() -> None:
    async with running_server(ready=False) as running:
        error = HeddleError.from_rpc_error(await failure(running.stub.Encode(engine_pb2.EncodeRequest())))
        assert error.kind is ErrorKind.UNAVAILABLE
        assert error.retry_after_ms > 0


async def test_a_server_listens_once_the_sockets_that_it_waits_for_exist(tmp_path: Path) -> None:
    stop = asyncio.Event()
    server = Server(["127.0.0.1:0"], drain_s_max=5, stop=stop, listen_after=[f"unix:{tmp_path}/engine"])
    serving = asyncio.create_task(server.serve())
    await asyncio.sleep(0.05)
    assert not server.addresses
    (tmp_path / "engine").touch()
    async with asyncio.timeout(10):
        while not server.addresses:
            await asyncio.sleep(0.01)
    stop.set()
    await serving


async def test_stopping_does_not_wait_for_a_socket(tmp_path: Path) -> None:
    stop = asyncio.Event()
    server = Server(["127.0.0.1:0"], drain_s_max=5, stop=stop, listen_after=[f"unix:{tmp_path}/engine"])
    serving = asyncio.create_task(server.serve())
    await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(serving, 10)
    assert not server.addresses


async def test_only_sockets_can_be_waited_for() -> None:
    server = Server(["127.0.0.1:0"], drain_s_max=5, stop=asyncio.Event(), listen_after=["127.0.0.1:50052"])
    with pytest.raises(ConfigurationError, match=r"listen_after must be unix:/path"):
        await server.serve()


async def test_reflection_lists_the_services_that_were_added() -> None:
    async with running_server() as running:
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        listed = [service.name async for response in call for service in response.list_services_response.service]
        assert listed == ["grpc.health.v1.Health", NAME]


async def test_a_stopping_server_is_not_ready_and_finishes_what_it_accepted() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def encode() -> None:
        entered.set()
        await go_on.wait()

    async with running_server(encode) as running:
        call = asyncio.ensure_future(running.stub.Encode(engine_pb2.EncodeRequest()))
        await entered.wait()
        running.stop.set()
        while await running.health(NAME) == SERVING:
            await asyncio.sleep(0.001)
        assert await running.health("") == SERVING
        go_on.set()
        assert (await call).HasField("outcome")
        await asyncio.wait_for(running.task, 5)


async def test_a_stopping_server_goes_on_serving_until_proxies_have_noticed() -> None:
    announced = asyncio.Event()

    async def announce() -> None:
        announced.set()

    stop = asyncio.Event()
    server = Server(["127.0.0.1:0"], drain_s_max=5, drain_delay_s=0.5, stop=stop)
    server.add(NAME, engine_pb2_grpc.add_EngineServiceServicer_to_server, engine_pb2_grpc.EngineServiceServicer())
    serving = asyncio.create_task(server.serve(announce_draining=announce))
    async with asyncio.timeout(10):
        while not server.is_ready:
            await asyncio.sleep(0.01)
    async with open_channel(server.addresses[0]) as channel:
        assert await health_of(channel, NAME) == SERVING
        stop.set()
        while await health_of(channel, NAME) == SERVING:
            await asyncio.sleep(0.01)
        assert not announced.is_set()
        error = await failure(
            engine_pb2_grpc.EngineServiceStub(channel).GetModel(engine_pb2.EngineServiceGetModelRequest())
        )
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED  # the handler answered
        await serving
    assert announced.is_set()


async def test_an_address_in_use_is_the_operators_mistake() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=f"cannot listen on {address}"):
            await Server([address], drain_s_max=1, stop=asyncio.Event()).serve()


async def test_several_addresses_are_served_by_one_server(tmp_path: Path) -> None:
    stop = asyncio.Event()
    server = Server([f"unix:{tmp_path}/socket", "127.0.0.1:0"], drain_s_max=1, stop=stop)
    running = asyncio.create_task(server.serve())
    while len(server.addresses) < 2:
        await asyncio.sleep(0.001)
    for address in server.addresses:
        async with open_channel(address) as channel:
            assert await health_of(channel, "") == SERVING
    stop.set()
    await running


async def started(kind: str, folder: Path) -> tuple[asyncio.subprocess.Process, str]:
    address = f"unix:{folder}/socket"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, service_process.__file__, address, kind),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    return process, address


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """Returns exit code, stdout and stderr."""
    output, log = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, output.decode(), log.decode()


@pytest.mark.parametrize("times", [1, 2])
async def test_sigterm_drains_in_order_and_exits_0_also_if_it_is_sent_twice(tmp_path: Path, times: int) -> None:
    process, address = await started("quick", tmp_path)
    async with open_channel(address) as channel:
        while await health_of(channel, NAME) != SERVING:
            await asyncio.sleep(0.01)
        stub: Any = engine_pb2_grpc.EngineServiceStub(channel)
        call = asyncio.ensure_future(
            stub.Encode(engine_pb2.EncodeRequest(sequences=engine_pb2.Sequences(lengths=bytes(400))))
        )
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.stdout
        assert (await process.stdout.readline()).strip() == b"draining"
        if times == 2:
            process.send_signal(signal.SIGTERM)
        assert (await call).outcome.id == 400
    code, output, _ = await ended(process)
    assert code == 0
    assert output.split() == ["idle", "closed"]


async def test_draining_ends_after_its_limit(tmp_path: Path) -> None:
    process, address = await started("impatient", tmp_path)
    async with open_channel(address) as channel:
        while await health_of(channel, NAME) != SERVING:
            await asyncio.sleep(0.01)
        stub: Any = engine_pb2_grpc.EngineServiceStub(channel)
        call = stub.Encode(engine_pb2.EncodeRequest(sequences=engine_pb2.Sequences(lengths=bytes(60_000))))
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        await failure(call)
    code, _, log = await ended(process)
    assert code == 0
    assert "still busy after draining for 0.5 s" in log


async def test_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    process, address = await started("quick", tmp_path)
    async with open_channel(address) as channel:
        while await health_of(channel, NAME) != SERVING:
            await asyncio.sleep(0.01)
        stub: Any = engine_pb2_grpc.EngineServiceStub(channel)
        call = asyncio.ensure_future(
            stub.Encode(engine_pb2.EncodeRequest(sequences=engine_pb2.Sequences(lengths=bytes(60_000))))
        )
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.stdout
        assert (await process.stdout.readline()).strip() == b"draining"
        process.send_signal(signal.SIGINT)
        await failure(call)
    code, output, _ = await ended(process)
    assert code == 128 + signal.SIGINT
    assert "closed" not in output


async def test_signal_during_warm_up_does_not_wait_for_its_thread(tmp_path: Path) -> None:
    process, address = await started("slow", tmp_path)
    async with open_channel(address) as channel:
        assert await health_of(channel, NAME) == NOT_SERVING
    process.send_signal(signal.SIGTERM)
    code, output, _ = await ended(process)
    assert code == 0
    assert output.split() == ["closed"]


@pytest.mark.parametrize(("kind", "code"), [("misconfigured", 2), ("broken", 1)])
async def test_failed_warm_up_is_fatal(kind: str, code: int, tmp_path: Path) -> None:
    process, _ = await started(kind, tmp_path)
    returned, output, log = await ended(process)
    assert returned == code
    assert output.split() == ["closed"]
    fatal = [line for line in log.splitlines() if "critical" in line]
    assert len(fatal) == 1
    if kind == "misconfigured":
        assert fatal[0].endswith("/no/model is not a model folder")
        assert "Traceback" not in log
    else:
        assert "the device failed" in log
