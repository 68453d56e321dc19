"""Translates answers of heddle.v1 to ModelInfer responses. Called by `servicer`."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from tokenizer_svc.oip.arrays import OutputTensor

# Names of the outputs, by request of heddle.v1.
OUTPUTS = {
    "embed": ("embeddings",),
    "embed_tokens": ("embeddings", "lengths"),
    "embed_sparse": ("indices", "values", "lengths"),
    "rerank": ("scores",),
    "predict": ("scores",),
    "predict_tokens": ("entities",),
}


def check_outputs(request: oip.ModelInferRequest, task: str) -> None:
    """Raises INVALID_INPUT for a requested output that the task does not have, or that is named twice."""
    for index, requested in enumerate(request.outputs):
        if index >= len(OUTPUTS[task]):
            problem = f"there are no outputs other than {', '.join(OUTPUTS[task])}, each once"
        elif requested.name not in OUTPUTS[task]:
            problem = f"there is no output {requested.name!r}, only {', '.join(OUTPUTS[task])}"
        elif requested.parameters:
            problem = f"the output {requested.name} takes no parameters"
        else:
            continue
        raise HeddleError(ErrorKind.INVALID_INPUT, problem, field="outputs")


def embeddings(answer: inference_pb2.EmbedResponse) -> list[OutputTensor]:
    tensor = answer.embeddings
    return [OutputTensor("embeddings", "FP32", tuple(tensor.shape), tensor.data)]


def token_embeddings(answer: inference_pb2.EmbedTokensResponse) -> list[OutputTensor]:
    """The vectors of all tokens, text after text, and the number of tokens of each text."""
    lengths = [tensor.shape[0] for tensor in answer.embeddings]
    data = b"".join([tensor.data for tensor in answer.embeddings])
    shape = (sum(lengths), answer.embeddings[0].shape[1])
    return [OutputTensor("embeddings", "FP32", shape, data), uint32_tensor("lengths", lengths)]


def sparse_embeddings(answer: inference_pb2.EmbedSparseResponse) -> list[OutputTensor]:
    """The entries of all vectors, text after text, and the number of entries of each text."""
    lengths = [len(one.indices) // 4 for one in answer.embeddings]
    indices = b"".join([one.indices for one in answer.embeddings])
    values = b"".join([one.values for one in answer.embeddings])
    return [
        OutputTensor("indices", "UINT32", (sum(lengths),), indices),
        OutputTensor("values", "FP32", (sum(lengths),), values),
        uint32_tensor("lengths", lengths),
    ]


def rerank_scores(answer: inference_pb2.RerankResponse) -> list[OutputTensor]:
    return [OutputTensor("scores", "FP32", (len(answer.scores) // 4,), answer.scores)]


def label_scores(answer: inference_pb2.PredictResponse) -> list[OutputTensor]:
    labels = len(answer.labels)
    return [OutputTensor("scores", "FP32", (len(answer.scores) // (4 * labels), labels), answer.scores)]


def entities(answer: inference_pb2.PredictTokensResponse) -> list[OutputTensor]:
    """A JSON list for each text."""
    found = [to_json([to_object(entity) for entity in result.entities]) for result in answer.results]
    return [OutputTensor("entities", "BYTES", (len(found),), found)]


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def to_object(entity: inference_pb2.Entity) -> dict[str, Any]:
    return {
        "text": entity.text,
        "start": entity.start_char,
        "end": entity.end_char,
        "scores": dict(entity.scores),
    }


def uint32_tensor(name: str, values: Sequence[int]) -> OutputTensor:
    return OutputTensor(name, "UINT32", (len(values),), np.array(values, "<u4").tobytes())


CONVERTERS: Mapping[str, Callable[[Any], list[OutputTensor]]] = {
    "embed": embeddings,
    "embed_tokens": token_embeddings,
    "embed_sparse": sparse_embeddings,
    "rerank": rerank_scores,
    "predict": label_scores,
    "predict_tokens": entities,
}


def respond(
    request: oip.ModelInferRequest, outcome: inference_pb2.InferenceOutcome, model_name: str, model_version: str
) -> oip.ModelInferResponse:
    """Makes the response with the outputs that the request names, or all. It has raw contents if the request had."""
    task = outcome.WhichOneof("result")
    assert task
    answer = getattr(outcome, task)
    response = oip.ModelInferResponse(model_name=model_name, model_version=model_version, id=request.id)
    response.parameters["tokens"].int64_param = answer.usage.tokens
    response.parameters["truncated_inputs"].int64_param = answer.usage.truncated_inputs
    tensors = {tensor.name: tensor for tensor in CONVERTERS[task](answer)}
    for name in [requested.name for requested in request.outputs] or tensors:
        tensor = tensors[name]
        output = response.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(tensor.raw())
        else:
            output.contents.CopyFrom(tensor.contents())
    return response
