"""Documents by their relevance to a query: POST /rerank as TEI and BEI have it, /v1/rerank and /v2/rerank as Cohere and
Jina do: https://docs.cohere.com/reference/rerank and https://api.jina.ai/redoc
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np

from heddle.v1 import inference_pb2
from http_gateway.endpoint import post
from http_gateway.errors import InWordsOf
from http_gateway.families import COHERE, TEI
from http_gateway.long_list import LongList
from http_gateway.message import Answer, Request
from http_gateway.routes.cost import COST_HEADERS, cost_headers
from http_gateway.routes.inputs import TEIBody, check_count
from http_gateway.routes.model_routes import ModelRoutes
from http_gateway.routes.ranking import ranking_of
from http_gateway.routes.schemas import Some, Text
from http_gateway.routing import Route


class RerankBody(TEIBody, kw_only=True):
    query: Text
    texts: Annotated[list[str], Some]
    raw_scores: bool | None = None
    return_text: bool | None = None
    instruction: str | None = None  # what the query is after, for models that are told in their prompt

    @property
    def inputs_count(self) -> int:
        return len(self.texts)


class Rank(msgspec.Struct, omit_defaults=True):
    index: int
    score: float
    text: str = ""  # only with return_text


class Document(msgspec.Struct):
    """Of a document's fields only its text counts."""

    text: str


class CohereRerankBody(TEIBody, kw_only=True):
    """Cohere's and Jina's, and TEI's fields for truncation."""

    query: Text
    documents: Annotated[list[str | Document], Some]
    top_n: Annotated[int, msgspec.Meta(ge=0)] | None = None  # 0 and absent: all
    return_documents: Annotated[
        bool | None,
        msgspec.Meta(description="False when absent, as for Cohere's clients; in Jina's own API it is true"),
    ] = None
    raw_scores: bool | None = None
    instruction: str | None = None


class Result(msgspec.Struct, omit_defaults=True):
    index: int
    relevance_score: float
    document: Document | None = None  # only with return_documents


class RerankUsage(msgspec.Struct):
    total_tokens: int


class CohereRerankAnswer(msgspec.Struct):
    """Cohere's clients read `id`, `results` and `meta`, Jina's `model`, `results` and `usage`."""

    id: str
    model: str
    results: list[Result]
    usage: RerankUsage
    meta: dict[str, Any]


TEXTS = ["Deep learning is a branch of machine learning.", "A cow eats grass."]
EXAMPLE = {"query": "What is deep learning?", "texts": TEXTS}
COHERE_EXAMPLE = {"query": "What is deep learning?", "documents": TEXTS, "top_n": 1, "return_documents": True}


class Rerank(ModelRoutes):
    def routes(self) -> list[Route]:
        cohere = [
            post(
                path,
                CohereRerankBody,
                handle,
                answer=CohereRerankAnswer,
                example=COHERE_EXAMPLE,
                family=COHERE,
                headers=COST_HEADERS,
            )
            for path, handle in (("/v1/rerank", self.rerank_v1), ("/v2/rerank", self.rerank_v2))
        ]
        return [
            post(
                "/rerank", RerankBody, self.rerank, answer=list[Rank], example=EXAMPLE, family=TEI, headers=COST_HEADERS
            ),
            *cohere,
        ]

    async def rerank(self, body: RerankBody, request: Request) -> Answer:
        """Texts by their relevance to a query, the best first."""
        check_count(len(body.texts), self.inputs_max, "texts")
        answer = await self.reranked(body, body.texts, request, field="texts")
        scores = np.frombuffer(answer.scores, "<f4")

        def rank(index: int) -> dict[str, Any]:
            bare = {"index": index, "score": scores[index]}
            return {**bare, "text": body.texts[index]} if body.return_text else bare

        return Answer(
            LongList(ranking_of(answer.ranking, scores), rank), cost_headers(request, answer.usage, answer.timings)
        )

    async def rerank_v1(self, body: CohereRerankBody, request: Request) -> Answer:
        """Documents by their relevance to a query, the best first, as Cohere's v1 and Jina's clients ask for them."""
        return await self._rerank_documents(body, request, "1")

    async def rerank_v2(self, body: CohereRerankBody, request: Request) -> Answer:
        """Documents by their relevance to a query, the best first, as Cohere's v2 clients ask for them."""
        return await self._rerank_documents(body, request, "2")

    async def _rerank_documents(self, body: CohereRerankBody, request: Request, version: str) -> Answer:
        check_count(len(body.documents), self.inputs_max, "documents", "documents")
        texts = [document if isinstance(document, str) else document.text for document in body.documents]
        answer = await self.reranked(body, texts, request, field="documents")
        scores = np.frombuffer(answer.scores, "<f4")

        def result(index: int) -> dict[str, Any]:
            bare = {"index": index, "relevance_score": scores[index]}
            return {**bare, "document": {"text": texts[index]}} if body.return_documents else bare

        value = {
            "id": request.id,
            "model": self.models.find(body.model).name,
            "results": LongList(ranking_of(answer.ranking, scores)[: body.top_n or None], result),
            "usage": {"total_tokens": answer.usage.tokens},
            "meta": {"api_version": {"version": version}, "billed_units": {"search_units": 1}},
        }
        return Answer(value, cost_headers(request, answer.usage, answer.timings))

    async def reranked(
        self,
        body: RerankBody | CohereRerankBody,
        texts: list[str],
        request: Request,
        *,
        field: str,
        place_of: Callable[[int], str] | None = None,
    ) -> inference_pb2.RerankResponse:
        """`field` is what the caller calls the texts, `place_of` says where one of them is if not at its index."""
        call = inference_pb2.RerankRequest(
            query=body.query,
            documents=texts,
            truncation=body.truncation,
            truncation_side=body.truncation_side,
            raw_scores=bool(body.raw_scores),
            instruction=body.instruction or "",
        )
        with InWordsOf({"documents": field}, place_of=place_of):
            return await self.models.find(body.model).client.rerank(call, request.options())
