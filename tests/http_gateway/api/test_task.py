"""`task` in a request selects the adapter and the prompt of jina-embeddings-v3, over HTTP and gRPC."""

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import torch
from transformers import JinaEmbeddingsV3Model

from engine_svc.backends.torch_backend import TorchBackend
from heddle import tensors
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.client import Client
from heddle.rpc.channels import open_channel
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2
from heddle.v1 import inference_pb2 as pb
from heddle.v1.engine_pb2_grpc import EngineServiceStub
from tests.checkpoints import write_json, write_tokenizer
from tests.engine_svc.models.cases import Array, Reference
from tests.engine_svc.models.cases_of.jina_roberta import ADAPTERS, hub_case
from tests.engine_svc.models.hub_layout import change_config
from tests.http_gateway.calls import answer_to, refusal_of
from tests.kinds import http_of
from tests.messages import submitted

INSTRUCTIONS = {"retrieval.query": "w7 w8 w9 ", "retrieval.passage": "w10 ", "separation": ""}
TEXT = "w1 w2 w3 w2"
FIRST_WORD = 5  # the id of w0


class Served:
    def __init__(self, http: httpx.AsyncClient, folder: Path, references: Mapping[str, Reference]) -> None:
        self.http = http
        self.tokenizer = f"unix:{folder}/tokenizer"
        self.engine = f"unix:{folder}/engine"
        self.references = references

    @torch.inference_mode()
    def hidden(self, task: str, prompt: str) -> Array:
        """Hidden states of [CLS], the prompt, the text and [SEP], from the reference with the task's adapter."""
        ids = [2, *(int(word[1:]) + FIRST_WORD for word in (prompt + TEXT).split()), 3]
        return self.references[task](torch.tensor([ids]), torch.zeros(1, len(ids))).numpy()

    def vector(self, task: str, prompt: str) -> Array:
        mean = self.hidden(task, prompt).mean(0)
        normal: Array = mean / np.linalg.norm(mean)
        return normal


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    folder = tmp_path / "model"
    folder.mkdir()
    cases = {task: hub_case(JinaEmbeddingsV3Model, ModelKind.EMBEDDER, task, adapter=task) for task in ("", *ADAPTERS)}
    references = {task: case.write(folder) for task, case in cases.items()}
    write_tokenizer(folder)
    change_config(folder, task_instructions=INSTRUCTIONS)
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"mine": "w11 "}})
    backend = TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu")
    async with http_of(tmp_path, folder, backend) as http:
        yield Served(http, tmp_path, references)


@pytest.mark.parametrize("task", ["", *ADAPTERS])
async def test_task_chooses_adapter_and_prompt_on_every_route_of_vectors(served: Served, task: str) -> None:
    prompt = INSTRUCTIONS.get(task, "")
    fields = {"task": task} if task else {}
    expected = served.vector(task, prompt)
    openai: Any = await answer_to(served.http, "/v1/embeddings", input=TEXT, **fields)
    np.testing.assert_allclose(openai["data"][0]["embedding"], expected, atol=1e-5)
    np.testing.assert_allclose(await answer_to(served.http, "/embed", inputs=TEXT, **fields), [expected], atol=1e-5)
    [tokens] = await answer_to(served.http, "/embed_all", inputs=TEXT, **fields)
    np.testing.assert_allclose(np.array(tokens), served.hidden(task, prompt), atol=1e-4)
    inputs = {"source_sentence": TEXT, "sentences": [TEXT, "w4 w5"]}
    first, second = await answer_to(served.http, "/similarity", inputs=inputs, parameters=fields)
    assert (first, second < 0.999) == (pytest.approx(1, abs=1e-5), True)


async def test_prompt_name_overrides_the_prompt_of_the_task(served: Served) -> None:
    fields = {"inputs": TEXT, "task": "retrieval.query", "prompt_name": "mine"}
    expected = served.vector("retrieval.query", "w11 ")
    np.testing.assert_allclose(await answer_to(served.http, "/embed", **fields), [expected], atol=1e-5)


async def test_grpc_accepts_the_tasks_that_get_model_lists(served: Served) -> None:
    async with Client(served.tokenizer) as client:
        assert list((await client.get_model()).tasks) == ADAPTERS
        inputs = [pb.Input(text=TEXT)]
        vectors = (await client.embed(pb.EmbedRequest(inputs=inputs, task="text-matching"))).embeddings
        tokens = (await client.embed_tokens(pb.EmbedTokensRequest(inputs=inputs, task="separation"))).embeddings
    np.testing.assert_allclose(tensors.from_proto(vectors), [served.vector("text-matching", "")], atol=1e-5)
    np.testing.assert_allclose(tensors.from_proto(tokens[0]), served.hidden("separation", ""), atol=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.embed(pb.EmbedRequest(inputs=[pb.Input(text="w1")], task="cats")),
        lambda client: client.embed_tokens(pb.EmbedTokensRequest(inputs=[pb.Input(text="w1")], task="cats")),
        lambda client: client.similarity(pb.SimilarityRequest(source="w1", sentences=["w2"], task="cats")),
    ],
    ids=["embed", "embed_tokens", "similarity"],
)
async def test_an_unknown_task_is_refused_with_the_list_of_tasks(served: Served, call: Callable[[Client], Any]) -> None:
    async with Client(served.tokenizer) as client:
        with pytest.raises(
            HeddleError, match=r"served has no task 'cats'; it has: retrieval\.query, .*, text-"
        ) as caught:
            await call(client)
    assert (caught.value.kind, caught.value.field) == (ErrorKind.INVALID_INPUT, "task")
    assert (await refusal_of(served.http, "/embed", inputs="w1", task="cats"))[0] == 400


async def test_engine_refuses_a_task_that_it_has_no_adapter_for(served: Served) -> None:
    async with open_channel(served.engine) as channel:
        stub: Any = EngineServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Encode(engine_pb2.EncodeRequest(sequences=submitted([5, 6], task="cats")))
        fine = await stub.Encode(engine_pb2.EncodeRequest(sequences=submitted([5, 6], task=ADAPTERS[0])))
    refused = HeddleError.from_rpc_error(caught.value)
    assert (refused.kind, refused.field) == (ErrorKind.INVALID_INPUT, "task")
    assert "there are: retrieval.query, retrieval.passage" in refused.message
    assert fine.outcome.results[0].HasField("tensor")


async def test_model_without_tasks_refuses_one(http: httpx.AsyncClient) -> None:
    for path, field in (("/embed", "inputs"), ("/v1/embeddings", "input")):
        response = await http.post(path, json={field: "a", "task": "retrieval.query"})
        assert response.status_code == 400
        assert "has no task 'retrieval.query'; it has: none" in response.text
