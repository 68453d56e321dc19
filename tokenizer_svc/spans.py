"""The spans of requests, by OpenTelemetry's conventions for embeddings. The servicer passes `RequestSpans` to
`trace_submit`."""

from typing import Any

from heddle.telemetry.logs import REQUEST_ID_CHARACTERS_MAX
from heddle.telemetry.tracing import Attributes, Span, Tracing, Value, to_ns
from heddle.v1 import inference_pb2, tensor_pb2

# gen_ai.operation.name by request. The conventions define only `embeddings`.
OPERATIONS = {
    **dict.fromkeys(("embed", "embed_tokens", "embed_sparse"), "embeddings"),
    "predict": "classify",
    "predict_tokens": "classify_tokens",
}
# The fields that hold the inputs of requests.
INPUT_FIELDS = ("inputs", "documents", "tokenized_inputs", "sentences", "token_ids")


class RequestSpans:
    """`ItemSpans` (see heddle.rpc.traced_submit)."""

    def __init__(self, model: str, tracing: Tracing) -> None:
        """`model` is the name of the served model."""
        self._model = model
        self._tracing = tracing

    def begin(self, item: inference_pb2.InferenceItem) -> tuple[str, Attributes]:
        name = item.WhichOneof("request") or "unknown"
        request: Any = getattr(item, name, None)
        operation = OPERATIONS.get(name, name)
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "heddle",
            "gen_ai.request.model": self._model,
            "heddle.request.id": item.context.request_id[:REQUEST_ID_CHARACTERS_MAX],
            "heddle.request.kind": name,
            "heddle.request.inputs": sum(len(getattr(request, field, ())) for field in INPUT_FIELDS),
        }
        data_type = getattr(request, "data_type", None)
        if data_type in tensor_pb2.DataType.values():
            attributes["gen_ai.request.encoding_formats"] = [encoding_format(data_type)]
        return f"{operation} {self._model}", attributes

    def end(self, span: Span, outcome: inference_pb2.InferenceOutcome) -> None:
        answer: Any = getattr(outcome, outcome.WhichOneof("result") or "", None)
        if not hasattr(answer, "usage"):  # the request needed no engine
            return
        usage, dimension = answer.usage, find_dimension(answer)
        span.set(
            {
                "gen_ai.usage.input_tokens": usage.tokens,
                "heddle.truncated_inputs": usage.truncated_inputs,
                **({"gen_ai.embeddings.dimension.count": dimension} if dimension else {}),
            }
        )

    def record_tokenization(self, traceparent: str, began: float, ended: float) -> None:
        """`traceparent` is the context of the request's span. Times are in time.monotonic() seconds."""
        self._tracing.record("tokenize", traceparent, to_ns(began), to_ns(ended), {})


def encoding_format(data_type: tensor_pb2.DataType) -> str:
    """Returns the name that embedding APIs use: float, int8, ubinary and so on."""
    name = tensor_pb2.DataType.Name(data_type or tensor_pb2.DATA_TYPE_FLOAT32)
    return name.removeprefix("DATA_TYPE_").lower().replace("float32", "float")


def find_dimension(answer: Any) -> int:
    """The length of an answer's dense vectors; 0 if it has none."""
    embeddings = getattr(answer, "embeddings", ())
    tensor = embeddings if isinstance(embeddings, tensor_pb2.Tensor) else next(iter(embeddings), None)
    return tensor.shape[-1] if isinstance(tensor, tensor_pb2.Tensor) and tensor.shape else 0
