"""The whole system as its users see it: input sizes, the listing of its services, and equal vectors over every API."""

import asyncio
import base64
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sentence_transformers import SentenceTransformer

from heddle.checkpoint.model_source import PACKAGED_NAME, packaged_folder
from heddle.client import Client, UnaryClient
from heddle.rpc.channels import open_channel
from tests.processes import resident_bytes, running
from tests.system.served import Served
from tests.texts import varied_texts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RESIDENT_BYTES_MAX = 150 << 20


@pytest.mark.parametrize("module", ["http_gateway", "tokenizer_svc"])
async def test_gateway_and_tokenizer_stay_small(heddle: Served, module: str) -> None:
    (pid,) = running(heddle.pid, module)
    assert resident_bytes(pid) < RESIDENT_BYTES_MAX


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="not Linux")
@pytest.mark.parametrize("module", ["http_gateway", "tokenizer_svc"])
async def test_gateway_and_tokenizer_use_batch_scheduling(heddle: Served, module: str) -> None:
    (pid,) = running(heddle.pid, module)
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH


async def test_vectors_are_those_of_sentence_transformers_over_every_way_in(heddle: Served) -> None:
    texts = varied_texts(200, seed=1)
    model = SentenceTransformer(str(packaged_folder()), device="cpu")
    expected = np.asarray(model.encode(texts, normalize_embeddings=True))
    async with Client(heddle.grpc) as stream, UnaryClient(heddle.grpc) as unary:
        ways = {"stream": await stream.vectors(texts), "unary": await unary.vectors(texts)}
    for form in ("float", "base64"):
        ways[form] = await over_http(heddle, texts, form)
    for way, vectors in ways.items():
        cosines = (vectors * expected).sum(axis=1)
        assert cosines.min() > 0.99999, way


async def test_a_text_has_the_same_vector_alone_and_under_load(heddle: Served) -> None:
    texts = varied_texts(60, seed=2)
    together = await over_http(heddle, texts, "base64")
    async with Client(heddle.grpc) as client:
        apart = await asyncio.gather(*(client.vectors([text]) for text in texts))
    assert ((np.concatenate(apart) * together).sum(axis=1) > 0.99999).all()


async def over_http(heddle: Served, texts: list[str], form: str) -> npt.NDArray[np.float32]:
    async with httpx.AsyncClient(base_url=heddle.url, timeout=60) as http:
        body = {"model": PACKAGED_NAME, "input": texts, "encoding_format": form}
        response = await http.post("/v1/embeddings", json=body)
    assert response.status_code == 200, response.text
    rows = [item["embedding"] for item in response.json()["data"]]
    return np.array([np.frombuffer(base64.b64decode(row), "<f4") if form == "base64" else row for row in rows])


async def test_reflection_lists_the_services(simulated: Served) -> None:
    async with open_channel(simulated.grpc) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
        async for response in stub.ServerReflectionInfo(iter(requests)):
            names = {service.name for service in response.list_services_response.service}
    tei = {f"tei.v1.{name}" for name in ("Embed", "Info", "Predict", "Rerank", "Tokenize")}
    own = {"heddle.v1.InferenceService", "grpc.health.v1.Health"}
    assert names == own | tei | {"inference.GRPCInferenceService"}


@pytest.mark.parametrize("interpreter", [sys.executable, str(ROOT / ".venv/protoc/bin/python")])
def test_stubs_load_with_the_oldest_and_the_newest_protobuf(interpreter: str) -> None:
    """The oldest protobuf is in the environment of the stub generator."""
    if not Path(interpreter).exists():
        pytest.skip("`make lint` makes that environment")
    script = (
        "from heddle.v1 import engine_pb2_grpc, inference_pb2, inference_pb2_grpc;"
        "request = inference_pb2.EmbedRequest(inputs=[inference_pb2.Input(text='a')]);"
        "assert inference_pb2.EmbedRequest.FromString(request.SerializeToString()) == request;"
        "import google.protobuf; print(google.protobuf.__version__)"
    )
    done = subprocess.run([interpreter, "-c", script], capture_output=True, text=True, cwd=ROOT / "protos", check=False)
    assert done.returncode == 0, done.stderr
