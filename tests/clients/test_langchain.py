"""LangChain's OpenAI embeddings, set up as documented for other servers than OpenAI's.

By default, they send token ids of OpenAI's tokenizers, which are refused: see test_openai.py.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from tests.system.served import Served

pytestmark = pytest.mark.slow

TEXTS = ["hello", "world", "word " * 600]


@asynccontextmanager
async def make_embeddings(served: Served) -> AsyncIterator[OpenAIEmbeddings]:
    with httpx.Client() as http:
        async with httpx.AsyncClient() as http_async:
            yield OpenAIEmbeddings(
                base_url=f"{served.url}/v1",
                api_key=SecretStr("any"),
                model="m",
                max_retries=0,
                check_embedding_ctx_length=False,
                http_client=http,
                http_async_client=http_async,
            )


async def test_documents_and_queries_get_the_vectors_of_their_texts(simulated: Served) -> None:
    async with httpx.AsyncClient(base_url=simulated.url) as http:
        expected = (await http.post("/embed", json={"inputs": TEXTS})).json()
    async with make_embeddings(simulated) as embeddings:
        assert np.allclose(embeddings.embed_documents(TEXTS), expected, atol=1e-6)
        assert np.allclose(await embeddings.aembed_documents(TEXTS), expected, atol=1e-6)
        assert np.allclose(embeddings.embed_query("hello"), expected[0], atol=1e-6)
