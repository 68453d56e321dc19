"""GET /info: what is served, and within which limits, as TEI tells it."""

from typing import Any

import msgspec

from heddle.v1 import model_pb2
from http_gateway.endpoint import get
from http_gateway.families import TEI
from http_gateway.message import Answer, Request
from http_gateway.routing import Route
from http_gateway.served_models import ServedModels

TEI_KINDS = {
    model_pb2.MODEL_KIND_EMBEDDER: "embedding",
    model_pb2.MODEL_KIND_SPARSE_EMBEDDER: "embedding",
    model_pb2.MODEL_KIND_RERANKER: "reranker",
    model_pb2.MODEL_KIND_CLASSIFIER: "classifier",
    model_pb2.MODEL_KIND_TOKEN_CLASSIFIER: "token_classifier",
}


class ModelInfo(msgspec.Struct):
    """TEI's fields, and from `dimension` on those that it lacks."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    version: str
    dimension: int | None
    prompt_names: list[str]
    backend: str


class Info:
    def __init__(self, models: ServedModels, *, inputs_max: int, requests_max: int) -> None:
        self._models = models
        self._inputs_max = inputs_max
        self._requests_max = requests_max

    def routes(self) -> list[Route]:
        return [
            get("/info", self.info, answer=ModelInfo, family=TEI),
            get("/info/{model}", self.info, answer=ModelInfo, family=TEI),
        ]

    async def info(self, request: Request) -> Answer:
        """What the model is, and the limits of requests."""
        served = self._models.named(request.parameter) if request.parameter else self._models.find(None)
        model = await served.client.get_model(request.options())
        return Answer(
            msgspec.to_builtins(
                ModelInfo(
                    model_id=model.name,
                    model_sha=model.revision or None,
                    model_dtype=model.data_type,
                    served_model_name=served.name,
                    model_type={TEI_KINDS[model.kind]: details(model)},
                    max_concurrent_requests=self._requests_max,
                    max_input_length=model.sequence_tokens_max,
                    max_batch_tokens=model.batch_tokens_max,
                    max_batch_requests=None,
                    max_client_batch_size=min(self._inputs_max, model.inputs_max),
                    version=model.version,
                    dimension=model.dimension or None,
                    prompt_names=list(model.prompt_names),
                    backend=model.backend,
                )
            )
        )


def details(model: model_pb2.Model) -> dict[str, Any]:
    if model.kind == model_pb2.MODEL_KIND_SPARSE_EMBEDDER:
        return {"pooling": "splade"}
    if model.kind == model_pb2.MODEL_KIND_EMBEDDER:
        return {"pooling": model.pooling}
    names = {str(index): label for index, label in enumerate(model.labels)}
    return {"id2label": names, "label2id": {label: index for index, label in enumerate(model.labels)}}
