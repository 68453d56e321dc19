"""tei.v1.Embed: one vector per text, one per token, or a sparse one."""

from collections.abc import AsyncIterator
from typing import TypeVar

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.message_bytes import encode_repeated
from heddle.tei.v1 import tei_pb2, tei_pb2_grpc
from heddle.v1 import inference_pb2
from tokenizer_svc.tei.call import Call, Context
from tokenizer_svc.tei.calls import Calls
from tokenizer_svc.tei.metadata import metadata_of
from tokenizer_svc.tei.truncation import side_of, truncation_of

WithEmbeddings = TypeVar("WithEmbeddings", tei_pb2.EmbedResponse, tei_pb2.TokenEmbedding)


class EmbedServicer(tei_pb2_grpc.EmbedServicer):
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def Embed(self, request: tei_pb2.EmbedRequest, context: Context) -> tei_pb2.EmbedResponse:
        return await self._calls.unary(embed, request, context)

    async def EmbedStream(  # type: ignore[override]  # writes to the context
        self, request_iterator: AsyncIterator[tei_pb2.EmbedRequest], context: Context
    ) -> None:
        await self._calls.stream(embed, request_iterator, context)

    async def EmbedSparse(self, request: tei_pb2.EmbedSparseRequest, context: Context) -> tei_pb2.EmbedSparseResponse:
        return await self._calls.unary(embed_sparse, request, context)

    async def EmbedSparseStream(  # type: ignore[override]  # writes to the context
        self, request_iterator: AsyncIterator[tei_pb2.EmbedSparseRequest], context: Context
    ) -> None:
        await self._calls.stream(embed_sparse, request_iterator, context)

    async def EmbedAll(self, request: tei_pb2.EmbedAllRequest, context: Context) -> tei_pb2.EmbedAllResponse:
        return await self._calls.unary(embed_all, request, context)

    async def EmbedAllStream(  # type: ignore[override]  # writes to the context
        self, request_iterator: AsyncIterator[tei_pb2.EmbedAllRequest], context: Context
    ) -> None:
        await self._calls.stream(embed_all, request_iterator, context)


async def embed(call: Call, request: tei_pb2.EmbedRequest) -> tei_pb2.EmbedResponse:
    if request.HasField("dimensions") and not request.dimensions:
        raise HeddleError(ErrorKind.INVALID_INPUT, "dimensions must be at least 1", field="dimensions")
    wanted = inference_pb2.EmbedRequest(
        inputs=[inference_pb2.Input(text=request.inputs)],
        truncation=truncation_of(request),
        truncation_side=side_of(request),
        prompt_name=request.prompt_name,
        skip_normalization=request.HasField("normalize") and not request.normalize,
        dimensions=request.dimensions,
    )
    found = (await call.outcome(inference_pb2.InferenceItem(embed=wanted))).embed
    response = with_embeddings(tei_pb2.EmbedResponse, found.embeddings.data)
    response.metadata.CopyFrom(metadata_of(len(request.inputs), found.usage, found.timings))
    return response


async def embed_all(call: Call, request: tei_pb2.EmbedAllRequest) -> tei_pb2.EmbedAllResponse:
    wanted = inference_pb2.EmbedTokensRequest(
        inputs=[inference_pb2.Input(text=request.inputs)],
        truncation=truncation_of(request),
        truncation_side=side_of(request),
        prompt_name=request.prompt_name,
    )
    found = (await call.outcome(inference_pb2.InferenceItem(embed_tokens=wanted))).embed_tokens
    tokens, dimension = found.embeddings[0].shape
    data, size = found.embeddings[0].data, dimension * 4
    rows = (data[index * size : (index + 1) * size] for index in range(tokens))
    return tei_pb2.EmbedAllResponse(
        token_embeddings=[with_embeddings(tei_pb2.TokenEmbedding, row) for row in rows],
        metadata=metadata_of(len(request.inputs), found.usage, found.timings),
    )


async def embed_sparse(call: Call, request: tei_pb2.EmbedSparseRequest) -> tei_pb2.EmbedSparseResponse:
    wanted = inference_pb2.EmbedSparseRequest(
        inputs=[inference_pb2.Input(text=request.inputs)],
        truncation=truncation_of(request),
        truncation_side=side_of(request),
        prompt_name=request.prompt_name,
    )
    found = (await call.outcome(inference_pb2.InferenceItem(embed_sparse=wanted))).embed_sparse
    indices = memoryview(found.embeddings[0].indices).cast("I")
    values = memoryview(found.embeddings[0].values).cast("f")
    return tei_pb2.EmbedSparseResponse(
        sparse_embeddings=[
            tei_pb2.SparseValue(index=index, value=value) for index, value in zip(indices, values, strict=True)
        ],
        metadata=metadata_of(len(request.inputs), found.usage, found.timings),
    )


def with_embeddings(message_type: type[WithEmbeddings], data: bytes) -> WithEmbeddings:
    """A message whose `repeated float embeddings = 1` holds these float32 (little-endian). On the wire the field is a
    tag, a length and the very same bytes: reading them costs a fifteenth of passing Python numbers for 384 of them."""
    return message_type.FromString(encode_repeated((data,)))
