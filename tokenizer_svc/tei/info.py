"""tei.v1.Info: which model is served, and within which limits."""

from heddle.tei.v1 import tei_pb2, tei_pb2_grpc
from heddle.v1 import inference_pb2, model_pb2
from tokenizer_svc.servicer import InferenceServicer
from tokenizer_svc.tei.call import Context
from tokenizer_svc.tei.in_order import IN_FLIGHT_MAX

# TEI knows three kinds; it takes whatever has a classification head for a classifier.
MODEL_TYPES = {
    model_pb2.MODEL_KIND_EMBEDDER: tei_pb2.MODEL_TYPE_EMBEDDING,
    model_pb2.MODEL_KIND_SPARSE_EMBEDDER: tei_pb2.MODEL_TYPE_EMBEDDING,
    model_pb2.MODEL_KIND_MULTI_VECTOR_EMBEDDER: tei_pb2.MODEL_TYPE_EMBEDDING,
    model_pb2.MODEL_KIND_RERANKER: tei_pb2.MODEL_TYPE_RERANKER,
    model_pb2.MODEL_KIND_CLASSIFIER: tei_pb2.MODEL_TYPE_CLASSIFIER,
    model_pb2.MODEL_KIND_TOKEN_CLASSIFIER: tei_pb2.MODEL_TYPE_CLASSIFIER,
}


class InfoServicer(tei_pb2_grpc.InfoServicer):
    def __init__(self, inference: InferenceServicer) -> None:
        self._inference = inference

    async def Info(self, request: tei_pb2.InfoRequest, context: Context) -> tei_pb2.InfoResponse:
        described = await self._inference.GetModel(inference_pb2.InferenceServiceGetModelRequest(), context)
        return info_of(described.model)


def info_of(model: model_pb2.Model) -> tei_pb2.InfoResponse:
    """Of concurrent requests, those that one stream has in flight are told: it is not read beyond them. Unary calls are
    bounded by their bytes and not by their number, and those over HTTP by the gateway."""
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
