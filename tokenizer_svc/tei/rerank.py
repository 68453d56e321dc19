"""tei.v1.Rerank: texts by how well they answer a query, best first."""

import time
from collections.abc import AsyncIterator, Sequence

import numpy as np

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tei.v1 import tei_pb2, tei_pb2_grpc
from heddle.v1 import inference_pb2
from tokenizer_svc.scores import best_first, sigmoid
from tokenizer_svc.tei.call import Call, Context
from tokenizer_svc.tei.calls import Calls
from tokenizer_svc.tei.metadata import headers, metadata_of
from tokenizer_svc.tei.truncation import side_of, truncation_of


class RerankServicer(tei_pb2_grpc.RerankServicer):
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def Rerank(self, request: tei_pb2.RerankRequest, context: Context) -> tei_pb2.RerankResponse:
        return await self._calls.unary(rerank, request, context)

    async def RerankStream(
        self, request_iterator: AsyncIterator[tei_pb2.RerankStreamRequest], context: Context
    ) -> tei_pb2.RerankResponse:
        """Answers the whole stream at once. Texts are scored as they arrive."""
        started = time.perf_counter_ns()
        requests = StreamRequests(request_iterator)
        async with self._calls.in_order(logit_of_one, requests.texts(), context) as responses:
            response = together([response async for response in responses], raw_scores=requests.raw_scores)
        response.metadata.total_time_ns = time.perf_counter_ns() - started
        await context.send_initial_metadata(headers(response.metadata))
        return response


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


async def rerank(call: Call, request: tei_pb2.RerankRequest) -> tei_pb2.RerankResponse:
    response = await logits_of(call, request)
    return tei_pb2.RerankResponse(
        ranks=sort_ranks(response.ranks, raw_scores=request.raw_scores), metadata=response.metadata
    )


async def logits_of(call: Call, request: tei_pb2.RerankRequest) -> tei_pb2.RerankResponse:
    """The ranks in the order of the request's texts, with logits as scores."""
    wanted = inference_pb2.RerankRequest(
        query=request.query,
        documents=request.texts,
        truncation=truncation_of(request),
        truncation_side=side_of(request),
        raw_scores=True,
    )
    found = (await call.outcome(inference_pb2.InferenceItem(rerank=wanted))).rerank
    ranks = [
        tei_pb2.Rank(index=index, text=text if request.return_text else None, score=logit)
        for index, (text, logit) in enumerate(zip(request.texts, memoryview(found.scores).cast("f"), strict=True))
    ]
    chars = sum(len(request.query) + len(text) for text in request.texts)
    return tei_pb2.RerankResponse(ranks=ranks, metadata=metadata_of(chars, found.usage, found.timings))


async def logit_of_one(call: Call, request: tei_pb2.RerankStreamRequest) -> tei_pb2.RerankResponse:
    wanted = tei_pb2.RerankRequest(
        query=request.query,
        texts=[request.text],
        truncate=request.truncate,
        return_text=request.return_text,
        truncation_direction=request.truncation_direction,
    )
    return await logits_of(call, wanted)


def sort_ranks(by_logit: Sequence[tei_pb2.Rank], *, raw_scores: bool) -> list[tei_pb2.Rank]:
    """Sorts the ranks by their logits, best first, and replaces logits by scores unless raw scores are wanted."""
    logits = np.array([rank.score for rank in by_logit], np.float32)
    scores = logits if raw_scores else sigmoid(logits)
    for rank, score in zip(by_logit, scores.tolist(), strict=True):
        rank.score = score
    return [by_logit[index] for index in best_first(logits)]


def together(responses: Sequence[tei_pb2.RerankResponse], *, raw_scores: bool) -> tei_pb2.RerankResponse:
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
    return tei_pb2.RerankResponse(ranks=sort_ranks(ranks, raw_scores=raw_scores), metadata=metadata)
