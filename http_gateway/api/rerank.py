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
from http_gateway.api.answers import Usage, answer_with_costs, post_with_costs, rank, usage_value
from http_gateway.api.cohere import meta_value
from http_gateway.api.families import COHERE, TEI
from http_gateway.api.request_fields import NonEmpty, check_count, merge_aliases
from http_gateway.api.rerank_fields import Document, Documents, RankFields, document_object, read_documents
from http_gateway.api.served_models import ModelRoutes, ServedModels
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import Route


class RerankBody(RankFields, kw_only=True):
    """With `texts` the answer has TEI's shape, with `documents` that of /v1/rerank."""

    texts: Annotated[list[str], NonEmpty] | None = None
    documents: Documents | None = None
    return_text: bool | None = None  # TEI's name for return_documents

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
        answer = list[Rank] | CohereRerankAnswer
        return [
            post_with_costs("/rerank", RerankBody, self.rerank, answer=answer, example=EXAMPLE, family=TEI),
            *(
                post_with_costs(
                    path, CohereRerankBody, handler, answer=CohereRerankAnswer, example=COHERE_EXAMPLE, family=COHERE
                )
                for path, handler in (("/v1/rerank", self.rerank_v1), ("/v2/rerank", self.rerank_v2))
            ),
        ]

    async def rerank(self, body: RerankBody, request: Request) -> Answer:
        """Texts by their relevance to a query, the best first. `documents` are answered as at /v1/rerank."""
        if (body.texts is None) == (body.documents is None):
            raise HeddleError(ErrorKind.INVALID_INPUT, "texts or documents is required, and not both", field="texts")
        if body.documents is not None:
            return await self._rerank_documents(body, body.documents, request, "1")
        texts = body.texts or []
        check_count(len(texts), self.inputs_max, "texts")
        returns_texts = body.returns_documents
        response = await call_rerank(self.models, body, texts, request, field="texts")
        scores = np.frombuffer(response.scores, "<f4")

        def rank_value(index: int) -> dict[str, Any]:
            value = {"index": index, "score": scores[index]}
            return {**value, "text": texts[index]} if returns_texts else value

        order = rank(response.ranking, scores)[: body.results_max]
        return answer_with_costs(LazyList(order, rank_value), request, response)

    async def rerank_v1(self, body: CohereRerankBody, request: Request) -> Answer:
        """Documents by their relevance to a query, the best first, for Cohere's v1 and Jina's clients."""
        return await self._rerank_documents(body, body.documents, request, "1")

    async def rerank_v2(self, body: CohereRerankBody, request: Request) -> Answer:
        """Documents by their relevance to a query, the best first, for Cohere's v2 clients."""
        return await self._rerank_documents(body, body.documents, request, "2")

    async def _rerank_documents(
        self, body: RankFields, documents: list[Document], request: Request, version: str
    ) -> Answer:
        check_count(len(documents), self.inputs_max, "documents", "documents")
        returns_documents = body.returns_documents
        texts = read_documents(documents, body.rank_fields, are_returned=returns_documents)
        response = await call_rerank(self.models, body, texts, request, field="documents")
        scores = np.frombuffer(response.scores, "<f4")

        def result(index: int) -> dict[str, Any]:
            value = {"index": index, "relevance_score": scores[index]}
            return {**value, "document": document_object(documents[index])} if returns_documents else value

        order = rank(response.ranking, scores)[: body.results_max]
        value = {
            "id": request.id,
            "model": self.models.find(body.model).name,
            "data" if body.is_from_voyage else "results": LazyList(order, result),
            "usage": usage_value(response.usage),
            "meta": meta_value(version, response.usage, {"search_units": 1}),
        }
        return answer_with_costs(value, request, response)


async def call_rerank(
    models: ServedModels,
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
        document_tokens_max=body.document_tokens_max,
        raw_scores=body.wants_raw_scores,
        instruction=body.instruction or "",
    )
    body.set_truncation(call)
    names = {"documents": field, "document_tokens_max": "max_tokens_per_doc"}
    with RenamedFields(names, place_of=place_of):
        return await models.find(body.model).client.rerank(call, request.options())
