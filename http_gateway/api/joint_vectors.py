"""Several kinds of vectors in one answer of POST /embed, for models that have them (bge-m3).

The names are FlagEmbedding's: return_dense, return_sparse and return_colbert_vecs in the request, dense_vecs,
lexical_weights and colbert_vecs in the answer.
"""

from typing import Any

import msgspec
import numpy as np

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2, model_pb2, tensor_pb2
from http_gateway.api.tables import table_of
from http_gateway.web.message import LongList

NAMES_OF_FIELDS = {"embedding_kinds": "return_sparse and return_colbert_vecs", "skip_normalization": "normalize"}


def embedding_kinds(*, dense: bool | None, sparse: bool | None, colbert: bool | None) -> list[model_pb2.EmbeddingKind]:
    """The requested kinds; [] if only dense vectors are requested. Dense vectors are the default. Raises INVALID_INPUT
    if no kind is left."""
    wanted = {
        model_pb2.EMBEDDING_KIND_DENSE: dense is not False,
        model_pb2.EMBEDDING_KIND_SPARSE: sparse,
        model_pb2.EMBEDDING_KIND_COLBERT: colbert,
    }
    kinds = [kind for kind, is_wanted in wanted.items() if is_wanted]
    if not kinds:
        message = "return_dense is false, so return_sparse or return_colbert_vecs must be true"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="return_dense")
    return [] if kinds == [model_pb2.EMBEDDING_KIND_DENSE] else kinds


class JointAnswer(msgspec.Struct):
    """The requested kinds, each a list with one entry per input."""

    dense_vecs: list[list[float]] | msgspec.UnsetType = msgspec.UNSET
    lexical_weights: list[dict[str, float]] | msgspec.UnsetType = msgspec.UNSET  # keys are token ids
    colbert_vecs: list[list[list[float]]] | msgspec.UnsetType = msgspec.UNSET


def joint_value(answer: inference_pb2.EmbedResponse) -> dict[str, Any]:
    """A `JointAnswer` for the writer."""
    value: dict[str, Any] = {}
    if answer.HasField("embeddings"):
        value["dense_vecs"] = LongList(tensors.from_proto(answer.embeddings))
    if answer.sparse_embeddings:
        value["lexical_weights"] = LongList(answer.sparse_embeddings, weights_of)
    if answer.colbert_embeddings:
        value["colbert_vecs"] = LongList(answer.colbert_embeddings, table_of)
    return value


def weights_of(vector: tensor_pb2.SparseTensor) -> dict[str, Any]:
    ids, weights = np.frombuffer(vector.indices, "<u4"), np.frombuffer(vector.values, "<f4")
    return dict(zip(map(str, ids.tolist()), weights, strict=True))
