"""POST /score and /v1/score of vLLM: a score for each pair of texts.

https://docs.vllm.ai/en/latest/models/pooling_models/scoring/
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2, item_pb2
from http_gateway.api.answers import Usage, cost_headers, post_with_costs
from http_gateway.api.bounded_gather import gather_bounded
from http_gateway.api.families import OPENAI
from http_gateway.api.request_fields import NonEmpty, Texts, check_at_most, list_texts
from http_gateway.api.rerank import RerankBody, call_rerank
from http_gateway.api.rerank_fields import ChatTemplateFields, DocumentTokensMax, QueryTokensMax
from http_gateway.api.served_models import ModelRoutes
from http_gateway.api.vllm import VLLMBody, vllm_value
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import Route

Documents = str | Annotated[list[str], NonEmpty]

# The pairs of fields that hold the two sides.
FIELD_PAIRS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


class ScoreBody(VLLMBody, kw_only=True):
    """Takes one pair of fields: queries and documents (or items), data_1 and data_2, or text_1 and text_2. A single
    text on the first side is compared with each text on the second. Two lists of the same length are compared pair by
    pair."""

    queries: Texts | None = None
    documents: Documents | None = None
    items: Documents | None = None
    data_1: Texts | None = None
    data_2: Documents | None = None
    text_1: Texts | None = None
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


class VLLMScore(ModelRoutes):
    def routes(self) -> list[Route]:
        return [
            post_with_costs(path, ScoreBody, self.score, answer=ScoreAnswer, example=EXAMPLE, family=OPENAI)
            for path in ("/score", "/v1/score")
        ]

    async def score(self, body: ScoreBody, request: Request) -> Answer:
        """A score for each pair of texts, in the order of the pairs."""
        names, queries, documents = read_sides(body)
        check_at_most(len(documents), self.inputs_max, names[1], "texts")
        indices_of_query: dict[str, list[int]] = {}
        for index in range(len(documents)):
            indices_of_query.setdefault(queries[index if len(queries) > 1 else 0], []).append(index)

        async def score_query(query: str, indices: Sequence[int]) -> inference_pb2.RerankResponse:
            texts = [documents[index] for index in indices]
            rerank = RerankBody(
                **body.common_fields(),
                query=query,
                texts=texts,
                raw_scores=body.is_raw,
                instruction=body.instruction,
                max_tokens_per_doc=body.max_tokens_per_doc,
            )
            return await call_rerank(
                self.models,
                rerank,
                texts,
                request,
                field=names[1],
                place_of=lambda index: f"{names[1]}[{indices[index]}]",
            )

        calls = [(len(indices), partial(score_query, query, indices)) for query, indices in indices_of_query.items()]
        responses = await gather_bounded(calls)
        scores = np.empty(len(documents), np.float32)
        for indices, response in zip(indices_of_query.values(), responses, strict=True):
            scores[indices] = np.frombuffer(response.scores, "<f4")

        def entry(index: int) -> dict[str, Any]:
            return {"index": index, "object": "score", "score": scores[index]}

        usage, timings = sum_usage(responses), slowest_timings(responses)
        value = vllm_value(request, self.models.find(body.model).name, LazyList(range(len(scores)), entry), usage)
        return Answer(value, cost_headers(request, usage, timings))


def read_sides(body: ScoreBody) -> tuple[tuple[str, str], list[str], list[str]]:
    """The names of the two sides, and their texts. Raises INVALID_INPUT and EMPTY_INPUT."""
    present = [name for name in dict.fromkeys(sum(FIELD_PAIRS, ())) if getattr(body, name) is not None]
    names = next((pair for pair in FIELD_PAIRS if set(pair) == set(present)), None)
    if names is None:
        pairs = ", ".join(f"{first} and {second}" for first, second in FIELD_PAIRS)
        message = f"send exactly one of these pairs of fields: {pairs}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field=present[0] if present else "text_1")
    queries, documents = (list_texts(getattr(body, name)) for name in names)
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


def sum_usage(responses: Sequence[inference_pb2.RerankResponse]) -> item_pb2.Usage:
    return item_pb2.Usage(
        tokens=sum(response.usage.tokens for response in responses),
        truncated_inputs=sum(response.usage.truncated_inputs for response in responses),
        characters=sum(response.usage.characters for response in responses),
        device=responses[0].usage.device,
    )


def slowest_timings(responses: Sequence[inference_pb2.RerankResponse]) -> item_pb2.Timings:
    """The longest time of each stage."""
    timings = [response.timings for response in responses]
    return item_pb2.Timings(
        tokenize_us=max(each.tokenize_us for each in timings),
        queue_us=max(each.queue_us for each in timings),
        compute_us=max(each.compute_us for each in timings),
    )
