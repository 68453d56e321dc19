"""TEI's routes for vectors: POST /embed (one per text), /embed_all (one per token), /embed_sparse, and /similarity.

Shapes: https://huggingface.github.io/text-embeddings-inference
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from heddle import tensors
from heddle.client import CallOptions, Client
from heddle.v1 import inference_pb2, tensor_pb2
from http_gateway.api.cost import COST_HEADERS, cost_headers
from http_gateway.api.families import TEI
from http_gateway.api.inputs import Dimensions, Inputs, TEIBody, TruncationFields, add_inputs, check_count, listed
from http_gateway.api.joint_vectors import NAMES_OF_FIELDS, JointAnswer, embedding_kinds, joint_value
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.schemas import Some, Text
from http_gateway.api.tables import table_of
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Route, post

NAMES_OF_SIMILARITY = {"source": "inputs.source_sentence", "sentences": "inputs.sentences"}


class EmbedAllBody(TEIBody, kw_only=True):
    inputs: Inputs
    prompt_name: str | None = None
    task: str | None = None  # for models with an adapter per task, such as jina-embeddings-v3

    @property
    def inputs_count(self) -> int:
        return len(listed(self.inputs)[0])


class EmbedBody(EmbedAllBody, kw_only=True):
    normalize: bool | None = None  # true when absent
    dimensions: Dimensions | None = None
    encoding_format: Literal["float"] | None = None
    # FlagEmbedding's, for models with several kinds of vectors. With any but dense, the answer is a `JointAnswer`.
    return_dense: bool | None = None  # true when absent
    return_sparse: bool | None = None
    return_colbert_vecs: bool | None = None


class SimilarityInputs(msgspec.Struct):
    source_sentence: Text
    sentences: Annotated[list[Text], Some]


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


class Vectors(ModelRoutes):
    def routes(self) -> list[Route]:
        text = {"inputs": "What is deep learning?"}
        sentences = {"source_sentence": "deep learning", "sentences": ["machine learning", "a pasture"]}
        return [
            post(
                "/embed",
                EmbedBody,
                self.embed,
                answer=list[list[float]] | JointAnswer,
                example=text,
                family=TEI,
                headers=COST_HEADERS,
            ),
            post(
                "/embed_all",
                EmbedAllBody,
                self.embed_all,
                answer=list[list[list[float]]],
                example=text,
                family=TEI,
                headers=COST_HEADERS,
            ),
            post(
                *("/embed_sparse", EmbedAllBody, self.embed_sparse),
                answer=list[list[SparseEntry]],
                example=text,
                family=TEI,
                headers=COST_HEADERS,
            ),
            post(
                *("/similarity", SimilarityBody, self.similarity),
                answer=list[float],
                example={"inputs": sentences},
                family=TEI,
                headers=COST_HEADERS,
            ),
        ]

    async def embed(self, body: EmbedBody, request: Request) -> Answer:
        """One vector for each input. With return_sparse or return_colbert_vecs, an object with each kind of vector."""
        item = inference_pb2.InferenceItem()
        is_list = self._write(body, item.embed)
        item.embed.skip_normalization = body.normalize is False
        item.embed.dimensions = body.dimensions or 0
        kinds = embedding_kinds(dense=body.return_dense, sparse=body.return_sparse, colbert=body.return_colbert_vecs)
        item.embed.embedding_kinds.extend(kinds)
        with RenamedFields(NAMES_OF_FIELDS, is_list=is_list):
            answer = (await self.models.find(body.model).client.infer(item, request.options())).embed
        value = joint_value(answer) if kinds else LongList(tensors.from_proto(answer.embeddings))
        return Answer(value, cost_headers(request, answer.usage, answer.timings))

    async def embed_all(self, body: EmbedAllBody, request: Request) -> Answer:
        """One vector for each token of each input, neither pooled nor normalised."""
        return await self._each(body, request, inference_pb2.EmbedTokensRequest, Client.embed_tokens, table_of)

    async def embed_sparse(self, body: EmbedAllBody, request: Request) -> Answer:
        """The non-zero entries of one vector over the vocabulary for each input."""
        return await self._each(body, request, inference_pb2.EmbedSparseRequest, Client.embed_sparse, entries)

    async def _each(
        self,
        body: EmbedAllBody,
        request: Request,
        call_type: Callable[..., Any],
        ask: Callable[[Client, Any, CallOptions], Awaitable[Any]],
        made: Callable[[Any], LongList],
    ) -> Answer:
        """What `made` makes of each of the embeddings, which are messages of their own."""
        call = call_type()
        is_list = self._write(body, call)
        with RenamedFields({}, is_list=is_list):
            answer = await ask(self.models.find(body.model).client, call, request.options())
        return Answer(LongList(answer.embeddings, made), cost_headers(request, answer.usage, answer.timings))

    async def similarity(self, body: SimilarityBody, request: Request) -> Answer:
        """Cosine similarity of one sentence with each of the others."""
        sentences = body.inputs.sentences
        check_count(len(sentences), self.inputs_max, "inputs.sentences")
        parameters = body.parameters or SimilarityParameters()
        call = inference_pb2.SimilarityRequest(
            source=body.inputs.source_sentence,
            sentences=sentences,
            truncation=parameters.truncation,
            truncation_side=parameters.truncation_side,
            input_tokens_max=parameters.input_tokens_max,
            prompt_name=parameters.prompt_name or "",
            task=parameters.task or "",
        )
        with RenamedFields(NAMES_OF_SIMILARITY):
            answer = await self.models.find(body.model).client.similarity(call, request.options())
        scores = np.frombuffer(answer.scores, "<f4")
        return Answer(scores, cost_headers(request, answer.usage, answer.timings))

    def _write(self, body: EmbedAllBody, call: Any) -> bool:
        """Sets the fields that all three requests have. Returns whether the caller sent a list of inputs."""
        inputs, is_list = listed(body.inputs)
        check_count(len(inputs), self.inputs_max, "inputs")
        add_inputs(call.inputs, inputs, "inputs", is_list=is_list)
        call.truncation = body.truncation
        call.truncation_side = body.truncation_side
        call.input_tokens_max = body.input_tokens_max
        call.prompt_name = body.prompt_name or ""
        call.task = body.task or ""
        return is_list


def entries(vector: tensor_pb2.SparseTensor) -> LongList:
    indices, values = np.frombuffer(vector.indices, "<u4"), np.frombuffer(vector.values, "<f4")
    return LongList(range(len(indices)), lambda place: {"index": indices[place], "value": values[place]})
