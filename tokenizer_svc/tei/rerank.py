"""tei.v1.Rerank: texts by how well they answer a query, best first."""

import time
from collections.abc import AsyncIterator, Sequence

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tei.v1 import tei_pb2, tei_pb2_grpc
from heddle.v1 import inference_pb2
from tokenizer_svc.tei.call import Call, Context
from tokenizer_svc.tei.calls import Calls
from tokenizer_svc.tei.metadata import headers, metadata_of
from tokenizer_svc.tei.ranking import best_first
from tokenizer_svc.tei.truncation import side_of, truncation_of


class RerankServicer(tei_pb2_grpc.RerankServicer):
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def Rerank(self, request: tei_pb2.RerankRequest, context: Context) -> tei_pb2.RerankResponse:
        return await self._calls.unary(rerank, request, context)

    async def RerankStream(
        self, request_iterator: AsyncIterator[tei_pb2.RerankStreamRequest], context: Context
    ) -> tei_pb2.RerankResponse:
        """One answer to the whole stream. Texts are scored as they come."""
        started = time.perf_counter_ns()
        async with self._calls.in_order(rerank_one, as_the_first(request_iterator), context) as responses:
            response = together([response async for response in responses])
        response.metadata.total_time_ns = time.perf_counter_ns() - started
        await context.send_initial_metadata(headers(response.metadata))
        return response


async def rerank(call: Call, request: tei_pb2.RerankRequest) -> tei_pb2.RerankResponse:
    wanted = inference_pb2.RerankRequest(
        query=request.query,
        documents=request.texts,
        truncation=truncation_of(request),
        truncation_side=side_of(request),
        raw_scores=request.raw_scores,
    )
    found = (await call.outcome(inference_pb2.InferenceItem(rerank=wanted))).rerank
    ranks = [
        tei_pb2.Rank(index=index, text=text if request.return_text else None, score=score)
        for index, (text, score) in enumerate(zip(request.texts, memoryview(found.scores).cast("f"), strict=True))
    ]
    chars = sum(len(request.query) + len(text) for text in request.texts)
    return tei_pb2.RerankResponse(ranks=best_first(ranks), metadata=metadata_of(chars, found.usage, found.timings))


async def rerank_one(call: Call, request: tei_pb2.RerankStreamRequest) -> tei_pb2.RerankResponse:
    wanted = tei_pb2.RerankRequest(
        query=request.query,
        texts=[request.text],
        truncate=request.truncate,
        raw_scores=request.raw_scores,
        return_text=request.return_text,
        truncation_direction=request.truncation_direction,
    )
    return await rerank(call, wanted)


async def as_the_first(
    requests: AsyncIterator[tei_pb2.RerankStreamRequest],
) -> AsyncIterator[tei_pb2.RerankStreamRequest]:
    """All requests with `raw_scores` and `return_text` of the first."""
    first: tei_pb2.RerankStreamRequest | None = None
    async for request in requests:
        first = first or request
        request.raw_scores, request.return_text = first.raw_scores, first.return_text
        yield request


def together(responses: Sequence[tei_pb2.RerankResponse]) -> tei_pb2.RerankResponse:
    """One response of those to single texts: characters and tokens are sums, times are means, but for the total, which
    the caller knows. Raises EMPTY_INPUT for none."""
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
    return tei_pb2.RerankResponse(ranks=best_first(ranks), metadata=metadata)
