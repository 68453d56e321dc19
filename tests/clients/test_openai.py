"""The openai library against a whole Heddle: its default requests, and how it reports errors."""

import asyncio
from typing import Any

import numpy as np
import openai
import pytest

from heddle.checkpoint.model_source import PACKAGED_NAME
from heddle.client import Client
from tests.system.served import Served, served

pytestmark = pytest.mark.slow


@pytest.fixture
def client(simulated: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{simulated.url}/v1", api_key="none", max_retries=0)


def test_default_encoding_gives_the_vectors_of_grpc(client: openai.OpenAI, simulated: Served) -> None:
    texts = ["first", "second"]
    answer = client.embeddings.create(model=PACKAGED_NAME, input=texts)
    floats = client.embeddings.create(model=PACKAGED_NAME, input=texts, encoding_format="float")
    expected = asyncio.run(vectors(simulated.grpc, texts))
    assert np.array_equal(np.array([item.embedding for item in answer.data], np.float32), expected)
    assert np.array_equal(np.array([item.embedding for item in floats.data], np.float32), expected)
    assert answer.usage.total_tokens == 6


async def vectors(target: str, texts: list[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    async with Client(target) as grpc_client:
        return await grpc_client.vectors(texts)


def test_azures_client_gets_the_same_vectors(client: openai.OpenAI, simulated: Served) -> None:
    given: Any = {"azure_endpoint": simulated.url, "api_key": "none", "api_version": "2024-10-21"}
    expected = client.embeddings.create(model=PACKAGED_NAME, input=["first", "second"])
    with openai.AzureOpenAI(**given) as azure, openai.AzureOpenAI(**given, azure_deployment="mine") as own:
        for each, model in ((azure, PACKAGED_NAME), (azure, "mine"), (own, "ignored")):
            answer = each.embeddings.create(model=model, input=["first", "second"])
            assert [item.embedding for item in answer.data] == [item.embedding for item in expected.data]
        with pytest.raises(openai.BadRequestError) as empty:
            azure.embeddings.create(model="mine", input="")
    assert empty.value.param == "input"


async def test_azures_client_authenticates_with_its_own_header() -> None:
    async with served("--engine", "simulated", HEDDLE_GATEWAY_API_KEYS="secret") as running:
        for key, fits in (("secret", True), ("wrong", False)):
            async with openai.AsyncAzureOpenAI(
                azure_endpoint=running.url, api_key=key, api_version="2024-10-21", max_retries=0
            ) as azure:
                if fits:
                    assert (await azure.embeddings.create(model="mine", input="a")).usage.total_tokens == 3
                else:
                    with pytest.raises(openai.AuthenticationError):
                        await azure.embeddings.create(model="mine", input="a")


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [PACKAGED_NAME]
    assert client.models.retrieve(PACKAGED_NAME).id == PACKAGED_NAME
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-2")


def test_refusals_name_the_parameter(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as empty:
        client.embeddings.create(model=PACKAGED_NAME, input="")
    assert empty.value.param == "input"
    with pytest.raises(openai.BadRequestError) as large:
        client.embeddings.create(model=PACKAGED_NAME, input="a", dimensions=1000)
    assert (large.value.param, large.value.code) == ("dimensions", "invalid_input")
    with pytest.raises(openai.BadRequestError, match="2049"):
        client.embeddings.create(model=PACKAGED_NAME, input=["a"] * 2049)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model=PACKAGED_NAME, input=[1, 2, 3])


async def test_many_calls_at_once(simulated: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{simulated.url}/v1", api_key="none", max_retries=0) as client:
        calls = (client.embeddings.create(model=PACKAGED_NAME, input=str(number)) for number in range(200))
        answers = await asyncio.gather(*calls)
    assert {len(answer.data[0].embedding) for answer in answers} == {384}
