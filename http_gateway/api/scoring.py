"""POST /score and /v1/score of vLLM: a score for each pair of texts.

https://docs.vllm.ai/en/latest/models/pooling_models/scoring/
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2, item_pb2
from http_gateway.api.at_once import gather_bounded
from http_gateway.api.cost import COST_HEADERS, cost_headers
from http_gateway.api.documents import ChatTemplateFields, DocumentTokensMax, QueryTokensMax
from http_gateway.api.embeddings import Usage
from http_gateway.api.inputs import check_at_most, shared_fields
from http_gateway.api.rerank import Rerank, RerankBody
from http_gateway.api.schemas import Some, Text
from http_gateway.api.vllm_body import VLLMBody, answer_value
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Route, post

Queries = Text | Annotated[list[Text], Some]
Documents = str | Annotated[list[str], Some]

# The names that callers have for the two sides.
SIDES = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


class ScoreBody(VLLMBody, kw_only=True):
    """Takes one pair of fields: queries and documents (or items), data_1 and data_2, or text_1 and text_2. A single
    text on the first side is compared with each text on the second. Two lists of the same length are compared pair by
    pair."""

    queries: Queries | None = None
    documents: Documents | None = None
    items: Documents | None = None
    data_1: Queries | None = None
    data_2: Documents | None = None
    text_1: Queries | None = None
    text_2: Documents | None = None
    instruction: str | None = None  # task description for models with an instruction in their prompt
    max_tokens_per_doc: DocumentTokensMax | None = None  # of the second side
    max_tokens_per_query: QueryTokensMax = None
    chat_template_kwargs: ChatTemplateFields = None


class Score(msgspec.Struct):
    index: int
    object: Literal["score"]
    score: float


class ScoreAnswer(msgspec.Struct):
    id: str
    object: Literal["list"]
    created: int  # seconds since 1970
    model: str
    data: list[Score]
    usage: Usage


EXAMPLE = {
    "text_1": "What is deep learning?",
    "text_2": ["Deep learning is a branch of machine learning.", "A cow eats grass."],
}


class Scoring(Rerank):
    def routes(self) -> list[Route]:
        return [
            post(path, ScoreBody, self.score, answer=ScoreAnswer, example=EXAMPLE, headers=COST_HEADERS)
            for path in ("/score", "/v1/score")
        ]

    async def score(self, body: ScoreBody, request: Request) -> Answer:
        """A score for each pair of texts, in the order of the pairs."""
        names, queries, documents = sides_of(body)
        check_at_most(len(documents), self.inputs_max, names[1], "texts")
        indices_of: dict[str, list[int]] = {}
        for index in range(len(documents)):
            indices_of.setdefault(queries[index if len(queries) > 1 else 0], []).append(index)

        async def answer(query: str, indices: Sequence[int]) -> inference_pb2.RerankResponse:
            texts = [documents[index] for index in indices]
            rerank = RerankBody(
                **shared_fields(body),
                query=query,
                texts=texts,
                raw_scores=body.is_raw,
                instruction=body.instruction,
                max_tokens_per_doc=body.max_tokens_per_doc,
            )
            return await self.call_rerank(
                rerank, texts, request, field=names[1], place_of=lambda index: f"{names[1]}[{indices[index]}]"
            )

        calls = [(len(indices), functools.partial(answer, query, indices)) for query, indices in indices_of.items()]
        answers = await gather_bounded(calls)
        scores = np.empty(len(documents), np.float32)
        for indices, found in zip(indices_of.values(), answers, strict=True):
            scores[indices] = np.frombuffer(found.scores, "<f4")

        def entry(index: int) -> dict[str, Any]:
            return {"index": index, "object": "score", "score": scores[index]}

        usage, timings = usage_of(answers), timings_of(answers)
        value = answer_value(request, self.models.find(body.model).name, LongList(range(len(scores)), entry), usage)
        return Answer(value, cost_headers(request, usage, timings))


def sides_of(body: ScoreBody) -> tuple[tuple[str, str], list[str], list[str]]:
    """The names of the two sides, and their texts. Raises INVALID_INPUT and EMPTY_INPUT."""
    present = [name for name in dict.fromkeys(sum(SIDES, ())) if getattr(body, name) is not None]
    names = next((pair for pair in SIDES if set(pair) == set(present)), None)
    if names is None:
        pairs = ", ".join(f"{first} and {second}" for first, second in SIDES)
        message = f"send exactly one of these pairs of fields: {pairs}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field=present[0] if present else "text_1")
    queries, documents = (listed(getattr(body, name)) for name in names)
    for name, texts in zip(names, (queries, documents), strict=True):
        if not texts:
            raise HeddleError(ErrorKind.EMPTY_INPUT, f"{name} is empty: a request needs at least one", field=name)
    if len(queries) not in (1, len(documents)):
        counts = f"{names[0]} has {len(queries)} texts and {names[1]} has {len(documents)}"
        message = f"{counts}: send one text in {names[0]}, or as many as in {names[1]}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field=names[0])
    if "" in queries:
        place = names[0] if isinstance(getattr(body, names[0]), str) else f"{names[0]}[{queries.index('')}]"
        raise HeddleError(ErrorKind.EMPTY_INPUT, f"{place}: the text is empty", field=names[0])
    return names, queries, documents


def listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def usage_of(answers: Sequence[inference_pb2.RerankResponse]) -> item_pb2.Usage:
    return item_pb2.Usage(
        tokens=sum(answer.usage.tokens for answer in answers),
        truncated_inputs=sum(answer.usage.truncated_inputs for answer in answers),
        characters=sum(answer.usage.characters for answer in answers),
        device=answers[0].usage.device,
    )


def timings_of(answers: Sequence[inference_pb2.RerankResponse]) -> item_pb2.Timings:
    """The timings of the slowest call, stage by stage."""
    timings = [answer.timings for answer in answers]
    return item_pb2.Timings(
        tokenize_us=max(each.tokenize_us for each in timings),
        queue_us=max(each.queue_us for each in timings),
        compute_us=max(each.compute_us for each in timings),
    )
