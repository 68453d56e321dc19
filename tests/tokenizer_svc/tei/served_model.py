"""A tokenizer pod with a simulated engine behind it and a model of any kind, called with the stubs of tei.v1."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine_svc.backends import Backend
from heddle.rpc.channels import open_channel
from heddle.tei.v1 import tei_pb2_grpc
from heddle.v1 import inference_pb2, inference_pb2_grpc
from tests.cluster import engine_pod, tokenizer_pod
from tests.kinds import write_config

TOKENS_MAX = 64


class ServedModel:
    """The stubs of tei.v1, and of heddle.v1 to compare with; untyped, so that tests can send wrong types."""

    def __init__(self, target: str, channel: grpc.aio.Channel) -> None:
        self.target = target
        self.channel = channel
        self.heddle: Any = inference_pb2_grpc.InferenceServiceStub(channel)
        self.info: Any = tei_pb2_grpc.InfoStub(channel)
        self.embed: Any = tei_pb2_grpc.EmbedStub(channel)
        self.predict: Any = tei_pb2_grpc.PredictStub(channel)
        self.rerank: Any = tei_pb2_grpc.RerankStub(channel)
        self.tokenize: Any = tei_pb2_grpc.TokenizeStub(channel)


def write_embedder(folder: Path) -> Path:
    write_config(folder, "BertModel", ())
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "Ask: "}}))
    return folder


@asynccontextmanager
async def served(
    folder: Path, write: Callable[[Path], Path] = write_embedder, backend: Backend | None = None, **pod: Any
) -> AsyncIterator[ServedModel]:
    """The checkpoint that `write` makes, cut down to TOKENS_MAX; `pod` are settings of the tokenizer pod."""
    model = write(folder / "model")
    (model / "tokenizer_config.json").write_text(json.dumps({"model_max_length": TOKENS_MAX}))
    named = {"model": str(model), "served_model_name": "small"}
    async with (
        engine_pod(folder, backend, **named) as engine,
        tokenizer_pod(folder, engine, **named, **pod) as address,
        open_channel(address) as channel,
    ):
        yield ServedModel(address, channel)


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status and message with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def read_all(call: Any) -> list[Any]:
    return [response async for response in call]


def texts(*inputs: str) -> list[inference_pb2.Input]:
    return [inference_pb2.Input(text=text) for text in inputs]
