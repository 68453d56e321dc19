"""Each kind of model: TEI's name for it, and its routes. /info and the routes that follow the model's task use it."""

from collections.abc import Mapping
from dataclasses import dataclass

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import model_pb2


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


def kind_of(model: model_pb2.Model) -> Kind:
    """Raises WRONG_TASK for a kind that is newer than this gateway."""
    kind = KINDS.get(model.kind)
    if kind is None:
        message = f"the model is of a kind that this gateway does not know yet ({model.kind}): update the gateway"
        raise HeddleError(ErrorKind.WRONG_TASK, message)
    return kind
