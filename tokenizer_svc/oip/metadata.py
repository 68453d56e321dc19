"""Describes the model for ModelMetadata: its tensors, and other facts as properties. Called by `servicer`."""

import json

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from heddle.v1 import model_pb2
from tokenizer_svc.oip.requests import DOCUMENTS, QUERY

Tensor = oip.ModelMetadataResponse.TensorMetadata

ANY = -1  # the size depends on the request
TEXTS = [Tensor(name="text", datatype="BYTES", shape=[ANY])]
RERANKER_INPUTS = [
    Tensor(name=QUERY, datatype="BYTES", shape=[1]),
    Tensor(name=DOCUMENTS, datatype="BYTES", shape=[ANY]),
]


def describe(checkpoint: Checkpoint, model: model_pb2.Model, version: str) -> oip.ModelMetadataResponse:
    """Lists the inputs for texts. A request may also have token ids, or pairs of texts: see `requests`."""
    properties = {
        "kind": checkpoint.kind.value,
        "labels": json.dumps(list(checkpoint.labels)),
        "dimension": str(checkpoint.dimension or checkpoint.token_dimension),
        "sequence_tokens_max": str(model.sequence_tokens_max),
        "inputs_max": str(model.inputs_max),
        "prompt_names": json.dumps(list(model.prompt_names)),
        "data_type": model.data_type,
    }
    return oip.ModelMetadataResponse(
        name=model.name,
        versions=[version],
        platform=model.backend,
        inputs=RERANKER_INPUTS if checkpoint.kind is ModelKind.RERANKER else TEXTS,
        outputs=outputs_of(checkpoint),
        properties=properties,
    )


def outputs_of(checkpoint: Checkpoint) -> list[Tensor]:
    lengths = Tensor(name="lengths", datatype="UINT32", shape=[ANY])
    match checkpoint.kind:
        case ModelKind.EMBEDDER:
            return [Tensor(name="embeddings", datatype="FP32", shape=[ANY, checkpoint.dimension])]
        case ModelKind.MULTI_VECTOR_EMBEDDER:
            return [Tensor(name="embeddings", datatype="FP32", shape=[ANY, checkpoint.token_dimension]), lengths]
        case ModelKind.SPARSE_EMBEDDER:
            indices = Tensor(name="indices", datatype="UINT32", shape=[ANY])
            return [indices, Tensor(name="values", datatype="FP32", shape=[ANY]), lengths]
        case ModelKind.RERANKER:
            return [Tensor(name="scores", datatype="FP32", shape=[ANY])]
        case ModelKind.CLASSIFIER:
            return [Tensor(name="scores", datatype="FP32", shape=[ANY, len(checkpoint.labels)])]
        case ModelKind.TOKEN_CLASSIFIER:
            return [Tensor(name="entities", datatype="BYTES", shape=[ANY])]
