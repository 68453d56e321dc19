"""Reranking: POST /rerank of TEI and BEI, /v1/rerank and /v2/rerank of Cohere and Jina.

/rerank answers in the shape of /v1/rerank if the body has `documents` in place of `texts`.
https://docs.cohere.com/reference/rerank and https://api.jina.ai/redoc
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.api.cohere_meta import meta
from http_gateway.api.cost import COST_HEADERS, cost_headers
from http_gateway.api.documents import Document, Documents, RankFields, as_object, texts_of
from http_gateway.api.embeddings import Usage
from http_gateway.api.families import COHERE, TEI
from http_gateway.api.inputs import check_count
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.ranking import ranking_of
from http_gateway.api.schemas import Some
from http_gateway.api.supported import merge_aliases
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Route, post


class RerankBody(RankFields, kw_only=True):
    """With `texts` the answer has TEI's shape, with `documents` that of /v1/rerank."""

    texts: Annotated[list[str], Some] | None = None
    documents: Documents | None = None
    return_text: bool | None = None  # TEI's word for return_documents

    @property
    def inputs_count(self) -> int:
        return len(self.texts or self.documents or ())

    @property
    def returns_documents(self) -> bool:
        return bool(merge_aliases({"return_text": self.return_text, "return_documents": self.return_documents}))


class Rank(msgspec.Struct, omit_defaults=True):
    index: int
    score: float
    text: str = ""  # only with return_text


class CohereRerankBody(RankFields, kw_only=True):
    documents: Documents


class Result(msgspec.Struct, omit_defaults=True):
    index: int
    relevance_score: float
    document: dict[str, Any] | None = None  # only with return_documents


class CohereRerankAnswer(msgspec.Struct, omit_defaults=True):
    """Cohere's clients read `id`, `results` and `meta`; Jina's and Infinity's `model`, `results` and `usage`."""

    id: str
    model: str
    usage: Usage
    meta: dict[str, Any]
    results: list[Result] | None = None
    data: list[Result] | None = None  # instead of `results`, if the body has Voyage's `top_k` or `truncation`


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
                *("/rerank", RerankBody, self.rerank),
                answer=list[Rank] | CohereRerankAnswer,
                example=EXAMPLE,
                family=TEI,
                headers=COST_HEADERS,
            ),
            *cohere,
        ]

    async def rerank(self, body: RerankBody, request: Request) -> Answer:
        """Texts by their relevance to a query, the best first. `documents` are answered as at /v1/rerank."""
        if (body.texts is None) == (body.documents is None):
            raise HeddleError(ErrorKind.INVALID_INPUT, "texts or documents is required, and not both", field="texts")
        if body.documents is not None:
            return await self._rank_documents(body, body.documents, request, "1")
        texts = body.texts or []
        check_count(len(texts), self.inputs_max, "texts")
        returns_texts = body.returns_documents
        answer = await self.call_rerank(body, texts, request, field="texts")
        scores = np.frombuffer(answer.scores, "<f4")

        def rank(index: int) -> dict[str, Any]:
            bare = {"index": index, "score": scores[index]}
            return {**bare, "text": texts[index]} if returns_texts else bare

        order = ranking_of(answer.ranking, scores)[: body.results_max]
        return Answer(LongList(order, rank), cost_headers(request, answer.usage, answer.timings))

    async def rerank_v1(self, body: CohereRerankBody, request: Request) -> Answer:
        """Documents by their relevance to a query, the best first, for Cohere's v1 and Jina's clients."""
        return await self._rank_documents(body, body.documents, request, "1")

    async def rerank_v2(self, body: CohereRerankBody, request: Request) -> Answer:
        """Documents by their relevance to a query, the best first, for Cohere's v2 clients."""
        return await self._rank_documents(body, body.documents, request, "2")

    async def _rank_documents(
        self, body: RankFields, documents: list[Document], request: Request, version: str
    ) -> Answer:
        check_count(len(documents), self.inputs_max, "documents", "documents")
        are_returned = body.returns_documents
        texts = texts_of(documents, body.rank_fields, are_returned=are_returned)
        answer = await self.call_rerank(body, texts, request, field="documents")
        scores = np.frombuffer(answer.scores, "<f4")

        def result(index: int) -> dict[str, Any]:
            bare = {"index": index, "relevance_score": scores[index]}
            return {**bare, "document": as_object(documents[index])} if are_returned else bare

        tokens = answer.usage.tokens
        value = {
            "id": request.id,
            "model": self.models.find(body.model).name,
            "data" if body.is_from_voyage else "results": LongList(
                ranking_of(answer.ranking, scores)[: body.results_max], result
            ),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": meta(version, answer.usage, {"search_units": 1}),
        }
        return Answer(value, cost_headers(request, answer.usage, answer.timings))

    async def call_rerank(
        self,
        body: RankFields,
        texts: list[str],
        request: Request,
        *,
        field: str,
        place_of: Callable[[int], str] | None = None,
    ) -> inference_pb2.RerankResponse:
        """`field` is the caller's name for the texts. `place_of` maps an index to the caller's name for that text."""
        call = inference_pb2.RerankRequest(
            query=body.query,
            documents=texts,
            truncation=body.truncation,
            truncation_side=body.truncation_side,
            input_tokens_max=body.input_tokens_max,
            document_tokens_max=body.document_tokens_max,
            raw_scores=body.wants_raw_scores,
            instruction=body.instruction or "",
        )
        names = {"documents": field, "document_tokens_max": "max_tokens_per_doc"}
        with RenamedFields(names, place_of=place_of):
            return await self.models.find(body.model).client.rerank(call, request.options())
