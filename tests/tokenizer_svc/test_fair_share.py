"""Callers share a tokenizer pod and its engines by flow, or by address if they name no flow, in every kind of call."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest

from engine_svc.servicer import EngineServicer
from heddle.client import CallOptions, Client, UnaryClient
from heddle.tei.v1 import tei_pb2, tei_pb2_grpc
from heddle.v1 import inference_pb2 as pb
from tests.cluster import engine_pod, tokenizer_pod
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.text.inputs import Input, Options
from tokenizer_svc.text.sequences import TokenSequence, TokenSequences

REQUEST = pb.EmbedRequest(inputs=[pb.Input(text="one"), pb.Input(text="two")])


class Flows(list[str]):
    """The flows of the sequences that reached the engine since the last call of `seen`."""

    def seen(self) -> list[str]:
        seen = self[:]
        self.clear()
        return seen


@pytest.fixture
def flows(monkeypatch: pytest.MonkeyPatch) -> Flows:
    seen, submit = Flows(), EngineServicer.submit

    def spying(self: EngineServicer, item: object, *others: object) -> object:
        seen.append(item.context.flow)  # type: ignore[attr-defined]
        return submit(self, item, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(EngineServicer, "submit", spying)
    return seen


@pytest.fixture(params=["tcp", "unix"])
async def address(tmp_path: Path, flows: Flows, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = f"127.0.0.1:{port}" if request.param == "tcp" else f"unix:{tmp_path}/tokenizer"
    one_by_one = {"address": own, "submission_sequences_max": 1}
    async with engine_pod(tmp_path) as engine, tokenizer_pod(tmp_path, engine, **one_by_one) as address:
        yield address


def one_caller(address: str) -> str:
    return "" if address.startswith("unix:") else "peer:127.0.0.1"


@pytest.mark.parametrize("kind", [Client, UnaryClient])
async def test_requests_without_a_flow_are_grouped_by_peer_and_distinguished(
    address: str, flows: Flows, kind: type[Client] | type[UnaryClient]
) -> None:
    async with kind(address) as client:
        await asyncio.gather(*(client.embed(REQUEST) for _ in range(3)))
    seen = flows.seen()
    assert len(seen) == 6
    assert len(set(seen)) == 3
    callers = {flow.split("/")[0] for flow in seen}
    if caller := one_caller(address):
        assert callers == {caller}
    else:
        assert len(callers) == 3


@pytest.mark.parametrize("kind", [Client, UnaryClient])
async def test_a_named_flow_is_kept_and_its_requests_are_distinguished(
    address: str, flows: Flows, kind: type[Client] | type[UnaryClient]
) -> None:
    async with kind(address) as client:
        for flow in ("tenant", "tenant", "tenant/bulk", "tenant/bulk"):
            await client.embed(REQUEST, CallOptions(flow=flow))
    seen = flows.seen()
    assert {flow.split("/")[0] for flow in seen} == {"tenant"}
    assert len(set(seen[:4])) == 2
    assert set(seen[4:]) == {"tenant/bulk"}


async def test_a_stream_of_tei_is_one_flow_of_its_caller(address: str, flows: Flows) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: tei_pb2_grpc.EmbedAsyncStub = tei_pb2_grpc.EmbedStub(channel)
        for metadata in ((), (("heddle-flow", "tenant"),)):
            for _ in range(2):
                requests = [tei_pb2.EmbedRequest(inputs=str(number)) for number in range(5)]
                assert len([_ async for _ in stub.EmbedStream(iter(requests), metadata=metadata)]) == 5
            seen = flows.seen()
            assert len(seen) == 10
            assert len(set(seen)) == 2
            caller = "tenant" if metadata else one_caller(address)
            assert {flow.split("/")[0] for flow in seen} == {caller} or not caller


class Recorder:
    """Records the texts that it gets, and tokenizes nothing."""

    def __init__(self) -> None:
        self.texts: list[Input] = []

    def encode(self, work: Sequence[tuple[Sequence[Input], Options]]) -> list[TokenSequences]:
        self.texts += [content for inputs, _ in work for content in inputs]
        return [TokenSequences.from_results([TokenSequence(bytes(4)) for _ in inputs]) for inputs, _ in work]


async def test_many_requests_of_one_caller_have_one_turn_against_a_query_of_another() -> None:
    recorder, answered = Recorder(), asyncio.Event()
    encoder = Encoder(recorder)
    for number in range(256):
        encoder.submit(["x" * 5000], Options(), lambda *_: None, flow=f"many/{number}")
    encoder.submit(["query"], Options(), lambda *_: answered.set(), flow="few/1")
    await answered.wait()
    assert recorder.texts.index("query") == 1
    await encoder.close()
