"""The served models: GET /v1/models and /v1/models/{model} of OpenAI, GET /models of Infinity, which extends OpenAI's
shape, and GET /info of TEI.

https://platform.openai.com/docs/api-reference/models and https://michaelfeil.eu/infinity/latest/swagger_ui/
"""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import model_pb2
from http_gateway.api.families import OPENAI, TEI
from http_gateway.api.served_models import ModelRoutes, ServedModel, find_kind
from http_gateway.web.message import Answer, Request
from http_gateway.web.routing import Route, get

# Infinity's names for what a kind of model can do.
CAPABILITIES = {
    model_pb2.MODEL_KIND_EMBEDDER: ["embed"],
    model_pb2.MODEL_KIND_RERANKER: ["rerank", "classify"],
    model_pb2.MODEL_KIND_CLASSIFIER: ["classify"],
}

# What /info reports as the pooling of the kinds of embedders that have none.
TEI_POOLING = {
    model_pb2.MODEL_KIND_SPARSE_EMBEDDER: "splade",
    model_pb2.MODEL_KIND_MULTI_VECTOR_EMBEDDER: "none",
}


class ModelAnswer(msgspec.Struct):
    id: str
    object: Literal["model"]
    created: int  # seconds since 1970
    owned_by: str


class ModelsAnswer(msgspec.Struct):
    object: Literal["list"]
    data: list[ModelAnswer]


class InfinityModel(ModelAnswer):
    backend: str
    capabilities: list[str]
    stats: dict[str, float]  # this gateway's unanswered calls, and their share of its requests_max


class InfinityModels(msgspec.Struct):
    object: Literal["list"]
    data: list[InfinityModel]


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
class Models(ModelRoutes):
    requests_max: int  # the gateway's limit of concurrent requests

    def routes(self) -> list[Route]:
        return [
            get("/v1/models", self.list_models, answer=ModelsAnswer, family=OPENAI),
            get("/v1/models/{model}", self.describe_model, answer=ModelAnswer, family=OPENAI),
            get("/models", self.list_for_infinity, answer=InfinityModels, family=OPENAI),
            get("/info", self.info, answer=ModelInfo, family=TEI),
            get("/info/{model}", self.info, answer=ModelInfo, family=TEI),
        ]

    async def list_models(self, _: Request) -> Answer:
        """The models that are served."""
        return Answer({"object": "list", "data": [self._openai_model(name) for name in self.models.names()]})

    async def describe_model(self, request: Request) -> Answer:
        """The model of this name."""
        return Answer(self._openai_model(self.models.find_by_name(request.parameter).name))

    async def list_for_infinity(self, _: Request) -> Answer:
        """The models that are served, and how busy they are, for Infinity's clients."""
        return Answer({"object": "list", "data": [self._infinity_model(served) for served in self.models.known()]})

    def _infinity_model(self, served: ServedModel) -> dict[str, Any]:
        model = served.client.model or model_pb2.Model()
        unanswered = served.client.unanswered
        return {
            **self._openai_model(served.name),
            "owned_by": "infinity",  # Infinity's client accepts no other value
            "backend": model.backend,
            "capabilities": [*CAPABILITIES.get(model.kind, []), *(["rerank"] if model.reranks_by_cosine else [])],
            "stats": {
                "queue_fraction": unanswered / self.requests_max,
                "queue_absolute": unanswered,
                "results_pending": unanswered,
            },
        }

    def _openai_model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.models.created, "owned_by": "heddle"}

    async def info(self, request: Request) -> Answer:
        """What the model is, and the limits of requests."""
        served = self._find_served(request.parameter)
        model = await served.client.get_model(request.options())
        info = ModelInfo(
            model_id=model.name,
            model_sha=model.revision or None,
            model_dtype=model.data_type,
            served_model_name=served.name,
            model_type={find_kind(model).tei_name: tei_details(model)},
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
        return Answer(msgspec.to_builtins(info))

    def _find_served(self, name: str) -> ServedModel:
        if name:
            return self.models.find_by_name(name)
        if len(names := self.models.names()) > 1:
            message = f"several models are served: ask for one of {', '.join(f'/info/{each}' for each in names)}"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="model")
        return self.models.find(None)


def tei_details(model: model_pb2.Model) -> dict[str, Any]:
    if model.kind in TEI_POOLING:
        return {"pooling": TEI_POOLING[model.kind]}
    if model.kind == model_pb2.MODEL_KIND_EMBEDDER:
        return {"pooling": model.pooling}
    names = {str(index): label for index, label in enumerate(model.labels)}
    return {"id2label": names, "label2id": {label: index for index, label in enumerate(model.labels)}}
