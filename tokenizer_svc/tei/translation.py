"""Translates the requests of tei.v1 to heddle.v1, and the answers back: Info, Embed and Predict, and what all share."""

from typing import Any, Protocol, TypeVar

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.message_bytes import encode_repeated
from heddle.tei.v1 import tei_pb2
from heddle.v1 import inference_pb2, item_pb2, model_pb2
from tokenizer_svc.tei.calls import Call
from tokenizer_svc.tei.ordered_stream import IN_FLIGHT_MAX

# TEI has three kinds, and calls every model with a classification head a classifier.
MODEL_TYPES = {
    model_pb2.MODEL_KIND_EMBEDDER: tei_pb2.MODEL_TYPE_EMBEDDING,
    model_pb2.MODEL_KIND_SPARSE_EMBEDDER: tei_pb2.MODEL_TYPE_EMBEDDING,
    model_pb2.MODEL_KIND_MULTI_VECTOR_EMBEDDER: tei_pb2.MODEL_TYPE_EMBEDDING,
    model_pb2.MODEL_KIND_RERANKER: tei_pb2.MODEL_TYPE_RERANKER,
    model_pb2.MODEL_KIND_CLASSIFIER: tei_pb2.MODEL_TYPE_CLASSIFIER,
    model_pb2.MODEL_KIND_TOKEN_CLASSIFIER: tei_pb2.MODEL_TYPE_CLASSIFIER,
}

SIDES = {
    tei_pb2.TRUNCATION_DIRECTION_RIGHT: inference_pb2.TRUNCATION_SIDE_RIGHT,
    tei_pb2.TRUNCATION_DIRECTION_LEFT: inference_pb2.TRUNCATION_SIDE_LEFT,
}

WithEmbeddings = TypeVar("WithEmbeddings", tei_pb2.EmbedResponse, tei_pb2.TokenEmbedding)


class TruncationFlags(Protocol):
    @property
    def truncate(self) -> bool: ...
    @property
    def truncation_direction(self) -> tei_pb2.TruncationDirection: ...


def describe_model(model: model_pb2.Model) -> tei_pb2.InfoResponse:
    """`max_concurrent_requests` is what one stream may have in flight. Unary calls are limited by their bytes and not
    by their number."""
    return tei_pb2.InfoResponse(
        version=model.version,
        model_id=model.name,
        model_sha=model.revision or None,
        model_dtype=model.data_type,
        model_type=MODEL_TYPES[model.kind],
        max_concurrent_requests=IN_FLIGHT_MAX,
        max_input_length=model.sequence_tokens_max,
        max_batch_tokens=model.batch_tokens_max,
        max_client_batch_size=model.inputs_max,
        tokenization_workers=model.tokenization_workers,
    )


async def embed(call: Call, request: tei_pb2.EmbedRequest) -> tei_pb2.EmbedResponse:
    if request.HasField("dimensions") and not request.dimensions:
        raise HeddleError(ErrorKind.INVALID_INPUT, "dimensions must be at least 1", field="dimensions")
    wanted = inference_pb2.EmbedRequest(
        **to_text_fields(request),
        skip_normalization=request.HasField("normalize") and not request.normalize,
        dimensions=request.dimensions,
    )
    found = (await call.infer(inference_pb2.InferenceItem(embed=wanted))).embed
    response = with_embeddings(tei_pb2.EmbedResponse, found.embeddings.data)
    response.metadata.CopyFrom(to_metadata(len(request.inputs), found.usage, found.timings))
    return response


async def embed_all(call: Call, request: tei_pb2.EmbedAllRequest) -> tei_pb2.EmbedAllResponse:
    wanted = inference_pb2.EmbedTokensRequest(**to_text_fields(request))
    found = (await call.infer(inference_pb2.InferenceItem(embed_tokens=wanted))).embed_tokens
    tokens, dimension = found.embeddings[0].shape
    data, size = found.embeddings[0].data, dimension * 4
    rows = (data[index * size : (index + 1) * size] for index in range(tokens))
    return tei_pb2.EmbedAllResponse(
        token_embeddings=[with_embeddings(tei_pb2.TokenEmbedding, row) for row in rows],
        metadata=to_metadata(len(request.inputs), found.usage, found.timings),
    )


async def embed_sparse(call: Call, request: tei_pb2.EmbedSparseRequest) -> tei_pb2.EmbedSparseResponse:
    wanted = inference_pb2.EmbedSparseRequest(**to_text_fields(request))
    found = (await call.infer(inference_pb2.InferenceItem(embed_sparse=wanted))).embed_sparse
    indices = memoryview(found.embeddings[0].indices).cast("I")
    values = memoryview(found.embeddings[0].values).cast("f")
    return tei_pb2.EmbedSparseResponse(
        sparse_embeddings=[
            tei_pb2.SparseValue(index=index, value=value) for index, value in zip(indices, values, strict=True)
        ],
        metadata=to_metadata(len(request.inputs), found.usage, found.timings),
    )


async def predict(call: Call, request: tei_pb2.PredictRequest) -> tei_pb2.PredictResponse:
    return await classify(call, inference_pb2.TextOrPair(text=request.inputs), request)


async def predict_pair(call: Call, request: tei_pb2.PredictPairRequest) -> tei_pb2.PredictResponse:
    if len(request.inputs) not in (1, 2):
        message = f"inputs must have one or two texts, not {len(request.inputs)}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="inputs")
    text, *pair = request.inputs
    return await classify(call, inference_pb2.TextOrPair(text=text, pair=pair[0] if pair else None), request)


async def classify(
    call: Call, text: inference_pb2.TextOrPair, request: tei_pb2.PredictRequest | tei_pb2.PredictPairRequest
) -> tei_pb2.PredictResponse:
    wanted = inference_pb2.PredictRequest(
        inputs=[text],
        truncation=to_truncation(request),
        truncation_side=to_side(request),
        raw_scores=request.raw_scores,
    )
    found = (await call.infer(inference_pb2.InferenceItem(predict=wanted))).predict
    scores = memoryview(found.scores).cast("f")
    return tei_pb2.PredictResponse(
        predictions=[
            tei_pb2.Prediction(score=scores[index], label=found.labels[index])
            for index in memoryview(found.ranking).cast("I")
        ],
        metadata=to_metadata(len(text.text) + len(text.pair), found.usage, found.timings),
    )


def to_text_fields(
    request: tei_pb2.EmbedRequest | tei_pb2.EmbedAllRequest | tei_pb2.EmbedSparseRequest,
) -> dict[str, Any]:
    """The fields that all requests for embeddings share."""
    return {
        "inputs": [inference_pb2.Input(text=request.inputs)],
        "truncation": to_truncation(request),
        "truncation_side": to_side(request),
        "prompt_name": request.prompt_name,
    }


def to_truncation(request: TruncationFlags) -> inference_pb2.Truncation:
    """TEI's gRPC server refuses unless the request says otherwise, whatever `--auto-truncate` says."""
    return inference_pb2.TRUNCATION_ALLOW if request.truncate else inference_pb2.TRUNCATION_REFUSE


def to_side(request: TruncationFlags) -> inference_pb2.TruncationSide:
    """Right unless the caller says otherwise, whatever the pod is set to. Raises INVALID_INPUT for an unknown
    direction."""
    side = SIDES.get(request.truncation_direction)
    if side is None:
        message = f"there is no truncation direction {request.truncation_direction}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="truncation_direction")
    return side


def to_metadata(chars: int, usage: item_pb2.Usage, timings: item_pb2.Timings) -> tei_pb2.Metadata:
    """`chars` are code points of the texts, without a prompt."""
    return tei_pb2.Metadata(
        compute_chars=chars,
        compute_tokens=usage.tokens,
        total_time_ns=timings.total_us * 1000,
        tokenization_time_ns=timings.tokenize_us * 1000,
        queue_time_ns=timings.queue_us * 1000,
        inference_time_ns=timings.compute_us * 1000,
    )


def with_embeddings(message_type: type[WithEmbeddings], data: bytes) -> WithEmbeddings:
    """A message with these float32 (little-endian) in `repeated float embeddings = 1`. On the wire the field is a tag,
    a length and the same bytes. Parsing them takes a fifteenth of the time of passing 384 Python numbers."""
    return message_type.FromString(encode_repeated((data,)))
