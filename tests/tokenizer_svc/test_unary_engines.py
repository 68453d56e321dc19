"""`--engine-transport unary` with real engine pods. The gRPC channel balances calls by the pods' load reports."""

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from heddle.client import Client
from heddle.rpc.deadlines import NEVER, deadline_after
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, model_pb2
from heddle.v1.engine_pb2_grpc import EngineServiceStub
from tests.cluster import engine_pod, tokenizer_pod
from tests.metrics import free_port, scrape
from tests.slow_backend import SlowBackend
from tokenizer_svc import unary_engines
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.unary_engines import UnaryEngines

TOKENS = 8
numbers = itertools.count(1000)


async def test_a_tokenizer_pod_answers_over_unary_calls_even_if_its_engine_restarts(tmp_path: Path) -> None:
    port = free_port()
    async with engine_pod(tmp_path) as engine:
        tokenizer = tokenizer_pod(tmp_path, engine, engine_transport="unary", metrics_port=port)
        target = await tokenizer.__aenter__()
        client = Client(target)
        first = await client.vectors(["a loom", "weaves cloth"])
    calls = [asyncio.create_task(client.vectors(["a loom"])) for _ in range(5)]
    url = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(10):
        while (await scrape(url)).value("heddle_rpc_unanswered_items") < 5:
            await asyncio.sleep(0.01)
    async with engine_pod(tmp_path):
        for call in calls:
            assert np.array_equal((await asyncio.wait_for(call, 20))[0], first[0])
        scraped = await scrape(url)
        assert scraped.value("heddle_rpc_pods", state="connected") == 1
        assert scraped.value("heddle_rpc_unanswered_items") == 0
        await client.close()
        await tokenizer.__aexit__(None, None, None)


async def test_deadlines_and_cancels_reach_the_engine(tmp_path: Path) -> None:
    backend = SlowBackend()
    async with engine_pod(tmp_path, backend) as engine:
        engines = await connect(engine)
        backend.is_warm = True
        running, _ = ask(engines)
        await asyncio.sleep(0.1)
        late, _ = ask(engines, deadline_after(0.1))
        cancelled, cancel = ask(engines)
        await asyncio.sleep(0.05)
        cancel()
        assert isinstance(await running, engine_pb2.Outcome)
        error = await late
        assert isinstance(error, HeddleError)
        assert error.kind is ErrorKind.DEADLINE_EXCEEDED
        await asyncio.sleep(0.2)
        assert not cancelled.done()
        assert backend.ran == 1
        await engines.close()


async def test_a_call_whose_engine_dies_is_unavailable_long_before_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unary_engines, "NO_POD_S_MAX", 0.5)
    stack = contextlib.AsyncExitStack()
    engines = await connect(await stack.enter_async_context(engine_pod(tmp_path)))
    await stack.aclose()
    assert engines.ready  # it has not looked yet
    for _ in range(2):
        error = await asyncio.wait_for(ask(engines, deadline_after(60))[0], 20)
        assert isinstance(error, HeddleError)
        assert (error.kind, error.retry_after_ms) == (ErrorKind.UNAVAILABLE, 1000)
    assert not engines.ready
    async with engine_pod(tmp_path):
        outcome = await asyncio.wait_for(ask(engines, deadline_after(60))[0], 20)
        assert isinstance(outcome, engine_pb2.Outcome)
    await engines.close()


async def test_an_engine_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    async with engine_pod(tmp_path) as engine:
        engines = UnaryEngines(engine, model_pb2.Model(tokenizer_fingerprint="another"))
        await engines.start()
        outcome, _ = ask(engines)
        error = await asyncio.wait_for(outcome, 5)
        assert isinstance(error, HeddleError)
        assert error.kind is ErrorKind.MISMATCH
        assert not engines.ready
        await engines.close()


@pytest.mark.slow  # the channel ignores reports for the first second
async def test_the_channel_prefers_the_pod_that_reports_less_load(tmp_path: Path) -> None:
    fast, slow = PacedBackend(0.005), PacedBackend(0.04)
    first, second = free_address(), free_address()
    async with engine_pod(tmp_path, fast, address=first), engine_pod(tmp_path, slow, address=second):
        engines = await connect(f"ipv4:{first},{second}", first)
        await send(engines, 2.5)
        fast.ran = slow.ran = 0
        await send(engines, 1.5)
        assert fast.ran > 1.5 * slow.ran > 0
        await engines.close()


def test_unary_calls_need_a_single_target() -> None:
    with pytest.raises(ValueError, match="needs a single target"):
        TokenizerSettings(engines=("a:1", "b:1"), engine_transport="unary")


class PacedBackend:
    """A simulated backend whose passes take some seconds each, and that counts its sequences."""

    def __init__(self, seconds: float) -> None:
        self._simulated = SimulatedBackend(fixed_us=int(1e6 * seconds), per_token_ns=0)
        self.outputs, self.data_type = self._simulated.outputs, self._simulated.data_type
        self.ran = 0

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        self.ran += len(batch)
        return self._simulated.run(batch)

    def close(self) -> None:
        pass


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


async def send(engines: UnaryEngines, seconds: float, callers: int = 8) -> None:
    until = time.monotonic() + seconds

    async def call() -> None:
        while time.monotonic() < until:
            outcome = await ask(engines)[0]
            assert isinstance(outcome, engine_pb2.Outcome), outcome

    await asyncio.gather(*(call() for _ in range(callers)))


async def connect(target: str, pod: str = "") -> UnaryEngines:
    async with grpc.aio.insecure_channel(pod or target) as channel:
        response = await EngineServiceStub(channel).GetModel(engine_pb2.EngineServiceGetModelRequest())
    engines = UnaryEngines(target, response.model)
    await engines.start()
    await asyncio.wait_for(engines.wait_ready(), 5)
    return engines


def ask(engines: UnaryEngines, deadline: float = NEVER) -> tuple["asyncio.Future[Any]", Any]:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    token_ids = np.arange(TOKENS, dtype="<u4") + next(numbers)  # equal sequences would be computed once
    sequences = engine_pb2.Sequences(token_ids=token_ids.tobytes(), lengths=np.array([TOKENS], "<u4").tobytes())
    return answer, engines.submit(engine_pb2.Submission(sequences=sequences), deadline, answer.set_result)
