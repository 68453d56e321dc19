"""Maps paths of Baseten's edge and containers, and of KServe, to routes. The router calls
`resolve_path` for a path that is not a route.

/environments/production/sync/v1/embeddings   /v1/embeddings
/environments/production/predict              the default route
/v1/models/model:predict                      the default route
/v1/models/model                              /ready
/openai/v1/embeddings                         /v1/embeddings
"""

import re

from heddle.v1 import model_pb2
from http_gateway.api.served_models import KINDS, Kind, ServedModels

DEPLOYMENT = r"/(?:environments/[^/]+|deployment/[^/]+|production|development)"
SYNC = re.compile(DEPLOYMENT + r"/sync(?P<path>/.*)?")
PREDICT = re.compile(DEPLOYMENT + r"/predict|/v1/models/model:predict")
READY = "/v1/models/model"
KSERVE_PREFIX = "/openai/v1/"


def resolve_path(path: str, default_route: str) -> str:
    """Takes a path without a slash at its end. Returns other paths unchanged."""
    if PREDICT.fullmatch(path):
        return default_route
    if path == READY:
        return "/ready"
    if path.startswith(KSERVE_PREFIX):
        return path.removeprefix("/openai")
    match = SYNC.fullmatch(path)
    return (match["path"] or "/") if match else path


def default_path(models: ServedModels) -> str:
    """The route for the first model's task; /v1/embeddings until one of its pods has reported its kind."""
    return first_kind(models).default_path


def first_kind(models: ServedModels) -> Kind:
    """The kind of the first model; an embedder until one of its pods has reported another."""
    model = models.first.client.model
    return (KINDS.get(model.kind) if model else None) or KINDS[model_pb2.MODEL_KIND_EMBEDDER]
