"""A FastAPI server with sentence-transformers, as most people would write it. It runs in an environment of its own:

python fastapi_server.py --embedder FOLDER --dtype bfloat16 --port 8000
"""

import argparse
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder, SentenceTransformer

# One forward at a time, on all cores: without it, the forty threads that FastAPI has for requests fight for them.
one_at_a_time = Lock()


class EmbeddingsBody(BaseModel):
    input: str | list[str]


class RerankBody(BaseModel):
    query: str
    documents: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embedder", type=Path)
    parser.add_argument("--reranker", type=Path)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    dtype = {"dtype": getattr(torch, options.dtype)}
    app = FastAPI()
    app.get("/health")(lambda: {"status": "ok"})
    if options.embedder:
        add_embeddings(app, SentenceTransformer(str(options.embedder), device="cpu", model_kwargs=dtype))
    if options.reranker:
        add_rerank(app, CrossEncoder(str(options.reranker), device="cpu", model_kwargs=dtype))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


def add_embeddings(app: FastAPI, model: SentenceTransformer) -> None:
    def embeddings(body: EmbeddingsBody) -> dict[str, Any]:
        texts = [body.input] if isinstance(body.input, str) else body.input
        with one_at_a_time:
            vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return {"data": [{"index": index, "embedding": vector.tolist()} for index, vector in enumerate(vectors)]}

    app.post("/v1/embeddings")(embeddings)


def add_rerank(app: FastAPI, model: CrossEncoder) -> None:
    def rerank(body: RerankBody) -> dict[str, Any]:
        pairs = [(body.query, document) for document in body.documents]
        with one_at_a_time:
            scores = model.predict(pairs, show_progress_bar=False)
        return {"results": [{"index": index, "relevance_score": float(score)} for index, score in enumerate(scores)]}

    app.post("/v1/rerank")(rerank)


if __name__ == "__main__":
    main()
