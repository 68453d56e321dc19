"""GET /info: what is served, and within which limits, as TEI tells it."""

from dataclasses import dataclass
from typing import Any

import msgspec

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import model_pb2
from http_gateway.api.families import TEI
from http_gateway.api.kinds import kind_of
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.served_models import ServedModel
from http_gateway.web.message import Answer, Request
from http_gateway.web.routing import Route, get

# Where it follows from what the model is for.
POOLING_OF_KIND = {
    model_pb2.MODEL_KIND_SPARSE_EMBEDDER: "splade",
    model_pb2.MODEL_KIND_MULTI_VECTOR_EMBEDDER: "none",
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
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None
    dimension: int | None
    prompt_names: list[str]
    backend: str


@dataclass(frozen=True, slots=True)
class Info(ModelRoutes):
    requests_max: int  # that the gateway answers at a time

    def routes(self) -> list[Route]:
        return [
            get("/info", self.info, answer=ModelInfo, family=TEI),
            get("/info/{model}", self.info, answer=ModelInfo, family=TEI),
        ]

    async def info(self, request: Request) -> Answer:
        """What the model is, and the limits of requests."""
        served = self._served(request.parameter)
        model = await served.client.get_model(request.options())
        return Answer(
            msgspec.to_builtins(
                ModelInfo(
                    model_id=model.name,
                    model_sha=model.revision or None,
                    model_dtype=model.data_type,
                    served_model_name=served.name,
                    model_type={kind_of(model).tei_name: details(model)},
                    max_concurrent_requests=self.requests_max,
                    max_input_length=model.sequence_tokens_max,
                    max_batch_tokens=model.batch_tokens_max,
                    max_batch_requests=None,
                    max_client_batch_size=min(self.inputs_max, model.inputs_max),
                    auto_truncate=not model.refuses_long_inputs,
                    tokenization_workers=model.tokenization_workers,
                    version=model.version,
                    sha=None,
                    docker_label=None,
                    dimension=model.dimension or None,
                    prompt_names=list(model.prompt_names),
                    backend=model.backend,
                )
            )
        )

    def _served(self, name: str) -> ServedModel:
        if name:
            return self.models.named(name)
        if len(names := self.models.names()) > 1:
            message = f"several models are served: ask for one of {', '.join(f'/info/{each}' for each in names)}"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="model")
        return self.models.find(None)


def details(model: model_pb2.Model) -> dict[str, Any]:
    if model.kind in POOLING_OF_KIND:
        return {"pooling": POOLING_OF_KIND[model.kind]}
    if model.kind == model_pb2.MODEL_KIND_EMBEDDER:
        return {"pooling": model.pooling}
    names = {str(index): label for index, label in enumerate(model.labels)}
    return {"id2label": names, "label2id": {label: index for index, label in enumerate(model.labels)}}
