"""The models that requests may name, the client of each one's tokenizer pods, and the routes of each kind of model."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heddle.client import Client
from heddle.rpc.credentials import PLAINTEXT, Access
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pool import Pool, PoolLimits
from heddle.telemetry.tracing import Tracing
from heddle.v1 import model_pb2

RETRY_AFTER_MS = 1_000


@dataclass(frozen=True, slots=True)
class Kind:
    tei_name: str  # in /info
    path: str  # of the route that POST / and /invocations stand for
    default_path: str  # of the route that Baseten's /predict stands for; /invocations decides by the body


KINDS: Mapping[int, Kind] = {
    model_pb2.MODEL_KIND_EMBEDDER: Kind("embedding", "/embed", "/v1/embeddings"),
    model_pb2.MODEL_KIND_MULTI_VECTOR_EMBEDDER: Kind("embedding", "/embed_all", "/embed_all"),
    model_pb2.MODEL_KIND_SPARSE_EMBEDDER: Kind("embedding", "/embed_sparse", "/embed_sparse"),
    model_pb2.MODEL_KIND_RERANKER: Kind("reranker", "/rerank", "/invocations"),
    model_pb2.MODEL_KIND_CLASSIFIER: Kind("classifier", "/predict", "/predict"),
    model_pb2.MODEL_KIND_TOKEN_CLASSIFIER: Kind("token_classifier", "/predict_tokens", "/predict_tokens"),
}


def find_kind(model: model_pb2.Model) -> Kind:
    """Raises WRONG_TASK for a kind that is newer than this gateway."""
    kind = KINDS.get(model.kind)
    if kind is None:
        message = f"this gateway does not know the model's kind ({model.kind}): update the gateway"
        raise HeddleError(ErrorKind.WRONG_TASK, message)
    return kind


class ServedModel:
    def __init__(
        self,
        name: str,
        targets: Sequence[str],
        limits: PoolLimits,
        access: Access,
        tracing: Tracing | None = None,
    ) -> None:
        """An empty name stands for the one that the pods report."""
        self.client = Client(*targets, limits=limits, access=access, tracing=tracing)
        self._name = name

    @property
    def name(self) -> str:
        """Empty until a pod has reported it."""
        return self._name or (self.client.model.name if self.client.model else "")


class ServedModels:
    """Created and used inside one event loop."""

    def __init__(
        self,
        targets_by_model: Mapping[str, Sequence[str]],
        *,
        strict_names: bool,
        limits: PoolLimits | None = None,
        access: Access = PLAINTEXT,
        tracing: Tracing | None = None,
    ) -> None:
        """Raises ConfigurationError for a certificate or key that cannot be used."""
        access.check()
        limits = limits or PoolLimits()
        self._models = [
            ServedModel(name, targets, limits, access, tracing) for name, targets in targets_by_model.items()
        ]
        self._strict_names = strict_names or len(self._models) > 1
        self._draining = False
        self.created = int(time.time())

    @property
    def first(self) -> ServedModel:
        return self._models[0]

    async def start(self) -> None:
        await asyncio.gather(*(model.client.start() for model in self._models))

    async def wait_ready(self) -> None:
        """Returns when each model has had an available pod."""
        await asyncio.gather(*(model.client.wait_ready() for model in self._models))

    async def close(self) -> None:
        await asyncio.gather(*(model.client.close() for model in self._models))

    def announce_draining(self) -> None:
        """Makes probes report that the gateway is not ready."""
        self._draining = True

    def check_ready(self) -> None:
        """Raises UNAVAILABLE unless every model has a pod that takes requests."""
        if self._draining:
            raise unavailable("the gateway is stopping")
        missing = [model.name or "the model" for model in self._models if not model.client.ready]
        if missing:
            raise unavailable(f"no pod takes requests for {', '.join(missing)}")

    def known(self) -> list[ServedModel]:
        """The models whose name is known: from the settings, or because a pod has reported it."""
        return [model for model in self._models if model.name]

    def names(self) -> list[str]:
        return [model.name for model in self.known()]

    def label(self, name: str) -> str:
        """Returns the name of the served model for a model name in a request, for the metrics; "" if there is none."""
        if len(self._models) == 1 and not (name and self._strict_names):
            return self._models[0].name
        return name if name in self.names() else ""

    def pools(self) -> dict[str, Pool[Any, Any]]:
        """The pods of each model, by its name."""
        return {model.name: model.client.pool for model in self._models}

    def find(self, name: str | None) -> ServedModel:
        """The model that a request means. Raises MODEL_NOT_FOUND, or INVALID_INPUT if the request must name one."""
        if len(self._models) == 1 and not (name and self._strict_names):
            return self._models[0]
        if not name:
            raise HeddleError(ErrorKind.INVALID_INPUT, f"name one of the models {self._quoted_names()}", field="model")
        return self.find_by_name(name)

    def find_by_name(self, name: str) -> ServedModel:
        """The model with exactly this name. Raises MODEL_NOT_FOUND, or UNAVAILABLE while no name is known."""
        for model in self._models:
            if model.name == name:
                return model
        if not self.names():
            raise unavailable("no pod that reports its model's name has been reached yet")
        message = f"there is no model {name!r}, only {self._quoted_names()}"
        raise HeddleError(ErrorKind.MODEL_NOT_FOUND, message, field="model")

    def _quoted_names(self) -> str:
        return ", ".join(map(repr, self.names()))


def unavailable(message: str) -> HeddleError:
    return HeddleError(ErrorKind.UNAVAILABLE, message, retry_after_ms=RETRY_AFTER_MS)


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """Base of the classes whose routes call a model."""

    models: ServedModels
    inputs_max: int  # of one request
