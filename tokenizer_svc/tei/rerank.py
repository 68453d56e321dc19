"""tei.v1.Rerank: texts by how well they answer a query, best first."""

import time
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tei.v1 import tei_pb2, tei_pb2_grpc
from heddle.tensors import Floats
from heddle.v1 import inference_pb2
from tokenizer_svc.tasks.scores import best_first, identity
from tokenizer_svc.tei.call import Call, Context
from tokenizer_svc.tei.calls import Calls
from tokenizer_svc.tei.metadata import headers, metadata_of
from tokenizer_svc.tei.truncation import side_of, truncation_of


class RerankServicer(tei_pb2_grpc.RerankServicer):
    def __init__(self, calls: Calls, score: Callable[[Floats], Floats]) -> None:
        """`score` makes scores of raw ones, where a request does not want these."""
        self._calls = calls
        self._score = score

    async def Rerank(self, request: tei_pb2.RerankRequest, context: Context) -> tei_pb2.RerankResponse:
        return await self._calls.unary(self._reranked, request, context)

    async def RerankStream(
        self, request_iterator: AsyncIterator[tei_pb2.RerankStreamRequest], context: Context
    ) -> tei_pb2.RerankResponse:
        """Answers the whole stream at once. Texts are scored as they arrive."""
        started = time.perf_counter_ns()
        requests = StreamRequests(request_iterator)
        async with self._calls.in_order(raw_score_of_one, requests.texts(), context) as responses:
            response = together([response async for response in responses])
        response = self._ranked(response, raw_scores=requests.raw_scores)
        response.metadata.total_time_ns = time.perf_counter_ns() - started
        await context.send_initial_metadata(headers(response.metadata))
        return response

    async def _reranked(self, call: Call, request: tei_pb2.RerankRequest) -> tei_pb2.RerankResponse:
        return self._ranked(await raw_scores_of(call, request), raw_scores=request.raw_scores)

    def _ranked(self, response: tei_pb2.RerankResponse, *, raw_scores: bool) -> tei_pb2.RerankResponse:
        ranks = sort_ranks(response.ranks, identity if raw_scores else self._score)
        return tei_pb2.RerankResponse(ranks=ranks, metadata=response.metadata)


class StreamRequests:
    """The requests of a stream. The first one sets `raw_scores` and `return_text` for all."""

    def __init__(self, requests: AsyncIterator[tei_pb2.RerankStreamRequest]) -> None:
        self._requests = requests
        self._first: tei_pb2.RerankStreamRequest | None = None

    @property
    def raw_scores(self) -> bool:
        return self._first is not None and self._first.raw_scores

    async def texts(self) -> AsyncIterator[tei_pb2.RerankStreamRequest]:
        async for request in self._requests:
            self._first = self._first or request
            request.return_text = self._first.return_text
            yield request


async def raw_scores_of(call: Call, request: tei_pb2.RerankRequest) -> tei_pb2.RerankResponse:
    """The ranks in the order of the request's texts, with raw scores."""
    wanted = inference_pb2.RerankRequest(
        query=request.query,
        documents=request.texts,
        truncation=truncation_of(request),
        truncation_side=side_of(request),
        raw_scores=True,
    )
    found = (await call.outcome(inference_pb2.InferenceItem(rerank=wanted))).rerank
    ranks = [
        tei_pb2.Rank(index=index, text=text if request.return_text else None, score=score)
        for index, (text, score) in enumerate(zip(request.texts, memoryview(found.scores).cast("f"), strict=True))
    ]
    chars = sum(len(request.query) + len(text) for text in request.texts)
    return tei_pb2.RerankResponse(ranks=ranks, metadata=metadata_of(chars, found.usage, found.timings))


async def raw_score_of_one(call: Call, request: tei_pb2.RerankStreamRequest) -> tei_pb2.RerankResponse:
    wanted = tei_pb2.RerankRequest(
        query=request.query,
        texts=[request.text],
        truncate=request.truncate,
        return_text=request.return_text,
        truncation_direction=request.truncation_direction,
    )
    return await raw_scores_of(call, wanted)


def sort_ranks(ranks: Sequence[tei_pb2.Rank], score: Callable[[Floats], Floats]) -> list[tei_pb2.Rank]:
    """Sorts the ranks by their raw scores, best first, and replaces these by what `score` makes of them."""
    raw_scores = np.array([rank.score for rank in ranks], np.float32)
    for rank, value in zip(ranks, score(raw_scores).tolist(), strict=True):
        rank.score = value
    return [ranks[index] for index in best_first(raw_scores)]


def together(responses: Sequence[tei_pb2.RerankResponse]) -> tei_pb2.RerankResponse:
    """Merges the responses to single texts: characters and tokens are sums, times are means. The caller sets the total
    time. Raises EMPTY_INPUT if there are none."""
    if not responses:
        raise HeddleError(ErrorKind.EMPTY_INPUT, "the stream had no texts", field="text")
    ranks = [
        tei_pb2.Rank(index=index, text=rank.text if rank.HasField("text") else None, score=rank.score)
        for index, response in enumerate(responses)
        for rank in response.ranks
    ]
    measured, count = [response.metadata for response in responses], len(responses)
    metadata = tei_pb2.Metadata(
        compute_chars=sum(one.compute_chars for one in measured),
        compute_tokens=sum(one.compute_tokens for one in measured),
        tokenization_time_ns=sum(one.tokenization_time_ns for one in measured) // count,
        queue_time_ns=sum(one.queue_time_ns for one in measured) // count,
        inference_time_ns=sum(one.inference_time_ns for one in measured) // count,
    )
    return tei_pb2.RerankResponse(ranks=ranks, metadata=metadata)
