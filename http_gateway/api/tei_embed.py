"""TEI's routes for vectors: POST /embed (one per text), /embed_all (one per token), /embed_sparse, and /similarity.

/embed also gives several kinds of vectors in one answer, for models that have them (bge-m3). The names are
FlagEmbedding's: return_dense, return_sparse and return_colbert_vecs in the request, dense_vecs, lexical_weights and
colbert_vecs in the answer.
https://huggingface.github.io/text-embeddings-inference
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from heddle import tensors
from heddle.client import CallOptions, Client
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2, model_pb2, tensor_pb2
from http_gateway.api.answers import answer_with_costs, post_with_costs, token_rows
from http_gateway.api.families import TEI
from http_gateway.api.request_fields import (
    CommonFields,
    Dimensions,
    Inputs,
    NonEmpty,
    Text,
    TruncationFields,
    add_inputs,
    check_count,
    list_inputs,
)
from http_gateway.api.served_models import ModelRoutes
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import Route

# The contract's fields, and the names that callers know.
EMBED_NAMES = {"embedding_kinds": "return_sparse and return_colbert_vecs", "skip_normalization": "normalize"}
SIMILARITY_NAMES = {"source": "inputs.source_sentence", "sentences": "inputs.sentences"}


class EmbedAllBody(CommonFields, kw_only=True):
    inputs: Inputs
    prompt_name: str | None = None
    task: str | None = None  # for models with an adapter per task, such as jina-embeddings-v3

    @property
    def inputs_count(self) -> int:
        return len(list_inputs(self.inputs)[0])


class EmbedBody(EmbedAllBody, kw_only=True):
    normalize: bool | None = None  # true when absent
    dimensions: Dimensions | None = None
    encoding_format: Literal["float"] | None = None
    # FlagEmbedding's. If any kind but dense is requested, the answer is a `JointAnswer`.
    return_dense: bool | None = None  # true when absent
    return_sparse: bool | None = None
    return_colbert_vecs: bool | None = None

    def embedding_kinds(self) -> list[model_pb2.EmbeddingKind]:
        """[] if only dense vectors are requested. Raises INVALID_INPUT if no kind is."""
        wanted = {
            model_pb2.EMBEDDING_KIND_DENSE: self.return_dense is not False,
            model_pb2.EMBEDDING_KIND_SPARSE: self.return_sparse,
            model_pb2.EMBEDDING_KIND_COLBERT: self.return_colbert_vecs,
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


class SimilarityInputs(msgspec.Struct):
    source_sentence: Text
    sentences: Annotated[list[Text], NonEmpty]


class SimilarityParameters(TruncationFields, kw_only=True):
    prompt_name: str | None = None
    task: str | None = None


class SimilarityBody(msgspec.Struct):
    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None
    model: str | None = None

    @property
    def inputs_count(self) -> int:
        return len(self.inputs.sentences)


class SparseEntry(msgspec.Struct):
    index: int
    value: float


TEXT = {"inputs": "What is deep learning?"}
SENTENCES = {"inputs": {"source_sentence": "deep learning", "sentences": ["machine learning", "a pasture"]}}


class TEIEmbed(ModelRoutes):
    def routes(self) -> list[Route]:
        dense, tokens, sparse = list[list[float]] | JointAnswer, list[list[list[float]]], list[list[SparseEntry]]
        return [
            post_with_costs("/embed", EmbedBody, self.embed, answer=dense, example=TEXT, family=TEI),
            post_with_costs("/embed_all", EmbedAllBody, self.embed_all, answer=tokens, example=TEXT, family=TEI),
            post_with_costs("/embed_sparse", EmbedAllBody, self.embed_sparse, answer=sparse, example=TEXT, family=TEI),
            post_with_costs(
                "/similarity", SimilarityBody, self.similarity, answer=list[float], example=SENTENCES, family=TEI
            ),
        ]

    async def embed(self, body: EmbedBody, request: Request) -> Answer:
        """One vector for each input. With return_sparse or return_colbert_vecs, an object with each kind of vector."""
        item = inference_pb2.InferenceItem()
        is_list = self._set_fields(item.embed, body)
        item.embed.skip_normalization = body.normalize is False
        item.embed.dimensions = body.dimensions or 0
        kinds = body.embedding_kinds()
        item.embed.embedding_kinds.extend(kinds)
        with RenamedFields(EMBED_NAMES, is_list=is_list):
            response = (await self.models.find(body.model).client.infer(item, request.options())).embed
        value = joint_value(response) if kinds else LazyList(tensors.from_proto(response.embeddings))
        return answer_with_costs(value, request, response)

    async def embed_all(self, body: EmbedAllBody, request: Request) -> Answer:
        """One vector for each token of each input, neither pooled nor normalised."""
        call = inference_pb2.EmbedTokensRequest()
        return await self._answer_each(body, request, call, Client.embed_tokens, token_rows)

    async def embed_sparse(self, body: EmbedAllBody, request: Request) -> Answer:
        """The non-zero entries of one vector over the vocabulary for each input."""
        call = inference_pb2.EmbedSparseRequest()
        return await self._answer_each(body, request, call, Client.embed_sparse, sparse_entries)

    async def _answer_each(
        self,
        body: EmbedAllBody,
        request: Request,
        call: Any,
        send: Callable[[Client, Any, CallOptions], Awaitable[Any]],
        to_value: Callable[[Any], LazyList],
    ) -> Answer:
        """For calls that are answered with a message for each input."""
        is_list = self._set_fields(call, body)
        with RenamedFields({}, is_list=is_list):
            response = await send(self.models.find(body.model).client, call, request.options())
        return answer_with_costs(LazyList(response.embeddings, to_value), request, response)

    async def similarity(self, body: SimilarityBody, request: Request) -> Answer:
        """Cosine similarity of one sentence with each of the others."""
        sentences = body.inputs.sentences
        check_count(len(sentences), self.inputs_max, "inputs.sentences")
        parameters = body.parameters or SimilarityParameters()
        call = inference_pb2.SimilarityRequest(
            source=body.inputs.source_sentence,
            sentences=sentences,
            prompt_name=parameters.prompt_name or "",
            task=parameters.task or "",
        )
        parameters.set_truncation(call)
        with RenamedFields(SIMILARITY_NAMES):
            response = await self.models.find(body.model).client.similarity(call, request.options())
        return answer_with_costs(np.frombuffer(response.scores, "<f4"), request, response)

    def _set_fields(self, call: Any, body: EmbedAllBody) -> bool:
        """Sets the fields that all three requests have. Returns whether the caller sent a list of inputs."""
        inputs, is_list = list_inputs(body.inputs)
        check_count(len(inputs), self.inputs_max, "inputs")
        add_inputs(call.inputs, inputs, "inputs", is_list=is_list)
        body.set_truncation(call)
        call.prompt_name = body.prompt_name or ""
        call.task = body.task or ""
        return is_list


def joint_value(response: inference_pb2.EmbedResponse) -> dict[str, Any]:
    """A `JointAnswer` for the writer."""
    value: dict[str, Any] = {}
    if response.HasField("embeddings"):
        value["dense_vecs"] = LazyList(tensors.from_proto(response.embeddings))
    if response.sparse_embeddings:
        value["lexical_weights"] = LazyList(response.sparse_embeddings, lexical_weights)
    if response.colbert_embeddings:
        value["colbert_vecs"] = LazyList(response.colbert_embeddings, token_rows)
    return value


def lexical_weights(vector: tensor_pb2.SparseTensor) -> dict[str, Any]:
    ids, weights = np.frombuffer(vector.indices, "<u4"), np.frombuffer(vector.values, "<f4")
    return dict(zip(map(str, ids.tolist()), weights, strict=True))


def sparse_entries(vector: tensor_pb2.SparseTensor) -> LazyList:
    indices, values = np.frombuffer(vector.indices, "<u4"), np.frombuffer(vector.values, "<f4")
    return LazyList(range(len(indices)), lambda place: {"index": indices[place], "value": values[place]})
