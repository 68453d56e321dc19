"""Writes requests in the format of each server, and reads the answers. `turns` uses it."""

import base64
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.servers import Server
from tests.bench.workloads import Request

Vectors = npt.NDArray[np.float32]


def path_of(server: Server, request: Request) -> str:
    return server.rerank_path if request.query else server.embeddings_path


def body_of(server: Server, request: Request) -> str:
    """Requests embeddings in OpenAI's format, in base64 if the server has it, and ranks in Jina's or TEI's."""
    body: dict[str, Any] = {"model": server.model}
    if request.query:
        documents = "texts" if server.ranks_as_tei else "documents"
        return json.dumps({**body, "query": request.query, documents: request.texts})
    texts = request.texts
    body["input"] = texts[0] if len(texts) == 1 else texts
    return json.dumps({**body, "encoding_format": "base64"} if server.has_base64 else body)


def vectors_of(answer: str) -> Vectors:
    """Reads vectors [inputs, dimension], in the order of the inputs."""
    data = sorted(json.loads(answer)["data"], key=lambda one: int(one["index"]))
    return np.stack([vector_of(one["embedding"]) for one in data])


def vector_of(embedding: str | list[float]) -> Vectors:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), "<f4")
    return np.array(embedding, np.float32)


def scores_of(answer: str) -> Vectors:
    """Reads the scores of the documents, in the order in which they were sent."""
    content = json.loads(answer)
    results = content if isinstance(content, list) else content["results"]
    in_order = sorted(results, key=lambda one: int(one["index"]))
    return np.array([one.get("relevance_score", one.get("score")) for one in in_order], np.float32)
