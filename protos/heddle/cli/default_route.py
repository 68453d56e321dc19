"""Checks that the gateway's default route suits the kind of model. `heddle config check` and `serve` call this, because
the gateway does not know the kind of its model when it starts.
"""

from collections.abc import Mapping
from itertools import chain

from heddle.checkpoint import ModelKind

ROUTE_VARIABLE = "HEDDLE_GATEWAY_DEFAULT_ROUTE"

# For each kind, the gateway's own choice first, then other suitable routes.
ROUTES: Mapping[ModelKind, tuple[str, ...]] = {
    ModelKind.EMBEDDER: ("/v1/embeddings",),
    ModelKind.MULTI_VECTOR_EMBEDDER: ("/embed_all",),
    ModelKind.SPARSE_EMBEDDER: ("/embed_sparse",),
    ModelKind.RERANKER: ("/rerank, or /predict for a body without a query", "/rerank", "/predict"),
    ModelKind.CLASSIFIER: ("/predict",),
    ModelKind.TOKEN_CLASSIFIER: ("/predict_tokens",),
}


def find_mismatch(route: str, kind: ModelKind) -> str:
    """Returns why the model cannot answer `route`, or "" if it can or the route is unknown here."""
    if route in ROUTES[kind] or route not in chain.from_iterable(ROUTES.values()):
        return ""
    fitting = " or ".join(known for known in ROUTES[kind] if " " not in known)
    return f"{route}, which this model does not answer: it is {describe_kind(kind)} (take {fitting})"


def describe_kind(kind: ModelKind) -> str:
    return f"{'an' if kind[0] == 'e' else 'a'} {kind.replace('_', ' ')}"
