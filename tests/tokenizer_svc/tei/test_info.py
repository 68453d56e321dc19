"""tei.v1.Info, health and reflection: what a caller can learn before it sends requests."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import tokenizer_svc.__main__ as tokenizer
from heddle.cli.readiness import grpc_ready
from heddle.rpc.channels import open_channel
from heddle.tei.v1 import tei_pb2 as tei
from heddle.v1 import model_pb2
from tests import kinds
from tests.tokenizer_svc.tei.served_model import TOKENS_MAX, ServedModel, served, status_of, write_embedder
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.tei.ordered_stream import IN_FLIGHT_MAX
from tokenizer_svc.tei.translation import MODEL_TYPES

SERVICES = {f"tei.v1.{name}" for name in ("Info", "Embed", "Predict", "Rerank", "Tokenize")}


async def test_info_states_the_model_and_its_limits(embedder: ServedModel) -> None:
    info = await embedder.info.Info(tei.InfoRequest())
    assert (info.model_id, info.model_dtype, info.max_input_length) == ("small", "float32", TOKENS_MAX)
    assert info.max_client_batch_size == TokenizerSettings().request_inputs_max
    assert info.max_concurrent_requests == IN_FLIGHT_MAX  # see test_ordered_stream.py
    assert info.version
    assert info.max_batch_tokens > 0
    assert info.tokenization_workers == 1
    assert not any(info.HasField(field) for field in ("model_sha", "sha", "docker_label"))


@pytest.mark.parametrize(
    ("write", "model_type"),
    [
        (write_embedder, tei.MODEL_TYPE_EMBEDDING),
        (kinds.write_sparse_embedder, tei.MODEL_TYPE_EMBEDDING),
        (kinds.write_multi_vector_embedder, tei.MODEL_TYPE_EMBEDDING),
        (kinds.write_reranker, tei.MODEL_TYPE_RERANKER),
        (kinds.write_classifier, tei.MODEL_TYPE_CLASSIFIER),
        (kinds.write_token_classifier, tei.MODEL_TYPE_CLASSIFIER),
    ],
)
async def test_info_states_the_kind_of_the_model(
    tmp_path: Path, write: Callable[[Path], Path], model_type: tei.ModelType
) -> None:
    async with served(tmp_path, write) as model:
        assert (await model.info.Info(tei.InfoRequest())).model_type == model_type


def test_every_kind_of_model_has_a_type_of_tei() -> None:
    assert MODEL_TYPES.keys() == set(model_pb2.ModelKind.values()) - {model_pb2.MODEL_KIND_UNSPECIFIED}


async def test_every_service_is_healthy_and_listed(embedder: ServedModel) -> None:
    target = embedder.target
    assert all([await grpc_ready(target, service) for service in SERVICES])
    stub = reflection_pb2_grpc.ServerReflectionStub(embedder.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    join_words = {service.name async for response in call for service in response.list_services_response.service}
    assert join_words >= SERVICES


async def test_no_service_is_healthy_or_answers_before_an_engine_is_there(tmp_path: Path) -> None:
    address, stop = f"unix:{tmp_path}/tokenizer", asyncio.Event()
    settings = TokenizerSettings(listen=(address,), engines=(f"unix:{tmp_path}/nobody",))
    serving = asyncio.create_task(tokenizer.serve(settings, stop))
    async with open_channel(address) as channel:
        await channel.channel_ready()
        status, message = await status_of(ServedModel(address, channel).embed.Embed(tei.EmbedRequest(inputs="warp")))
        assert (status.name, message) == ("UNAVAILABLE", "the server is starting")
    assert not any([await grpc_ready(address, service) for service in SERVICES])
    stop.set()
    await serving
