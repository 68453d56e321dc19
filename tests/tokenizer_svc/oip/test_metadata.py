"""The probes and the metadata of the Open Inference Protocol."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import tokenizer_svc.__main__ as tokenizer
from heddle.cli.readiness import grpc_ready
from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from heddle.rpc.channels import open_channel
from tests import kinds
from tests.tokenizer_svc.oip.calls import infer, stub_of, texts
from tests.tokenizer_svc.tei.served_model import TOKENS_MAX, ServedModel, served, status_of, write_embedder
from tokenizer_svc.oip.requests import ADD_TEXTS, ADD_TOKENIZED, TASKS
from tokenizer_svc.oip.servicer import SERVICE
from tokenizer_svc.settings import TokenizerSettings


@pytest.mark.parametrize(
    "write",
    [
        write_embedder,
        kinds.write_sparse_embedder,
        kinds.write_multi_vector_embedder,
        kinds.write_reranker,
        kinds.write_classifier,
        kinds.write_token_classifier,
    ],
)
async def test_metadata_lists_the_tensors_that_the_model_takes_and_returns(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    async with served(tmp_path, write) as model:
        stub = stub_of(model)
        stated = await stub.ModelMetadata(oip.ModelMetadataRequest(name="small"))
        assert (stated.name, list(stated.versions), stated.platform) == ("small", ["1"], "simulated")
        response = await stub.ModelInfer(infer(*[texts(one.name, "warp") for one in stated.inputs]))
        assert [(one.name, one.datatype) for one in stated.outputs] == [
            (one.name, one.datatype) for one in response.outputs
        ]
        for said, found in zip(stated.outputs, response.outputs, strict=True):
            assert len(said.shape) == len(found.shape)
            assert all(size in (-1, real) for size, real in zip(said.shape, found.shape, strict=True))
        assert int(stated.properties["sequence_tokens_max"]) == TOKENS_MAX


async def test_labels_are_stated_by_index(tmp_path: Path) -> None:
    async with served(tmp_path, kinds.write_classifier) as model:
        stated = await stub_of(model).ModelMetadata(oip.ModelMetadataRequest())
        assert json.loads(stated.properties["labels"]) == list(kinds.EMOTIONS)


def test_every_kind_of_model_has_a_task() -> None:
    assert set(ADD_TEXTS) == set(ADD_TOKENIZED) == set(TASKS.values())


async def test_a_ready_pod_says_so_without_a_key(tmp_path: Path) -> None:
    async with served(tmp_path, address="127.0.0.1:50917", api_keys=("secret",)) as model:
        stub = stub_of(model)
        assert (await stub.ServerLive(oip.ServerLiveRequest())).live
        assert (await stub.ServerReady(oip.ServerReadyRequest())).ready
        assert (await stub.ModelReady(oip.ModelReadyRequest(name="small"))).ready
        assert await grpc_ready(model.target, SERVICE)
        assert (await status_of(stub.ServerMetadata(oip.ServerMetadataRequest())))[0].name == "UNAUTHENTICATED"


async def test_a_starting_pod_is_live_and_not_ready(tmp_path: Path) -> None:
    address, stop = f"unix:{tmp_path}/tokenizer", asyncio.Event()
    settings = TokenizerSettings(listen=(address,), engines=(f"unix:{tmp_path}/nobody",))
    serving = asyncio.create_task(tokenizer.serve(settings, stop))
    async with open_channel(address) as channel:
        await channel.channel_ready()
        stub = stub_of(ServedModel(address, channel))
        assert (await stub.ServerLive(oip.ServerLiveRequest())).live
        assert not (await stub.ServerReady(oip.ServerReadyRequest())).ready
        assert not (await stub.ModelReady(oip.ModelReadyRequest())).ready
        assert (await status_of(stub.ModelInfer(infer(texts("text", "warp")))))[0].name == "UNAVAILABLE"
    stop.set()
    await serving
