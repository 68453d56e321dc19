"""POST /v2/embed, as Cohere defines it: https://docs.cohere.com/reference/embed"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2, model_pb2, tensor_pb2
from http_gateway.endpoint import post
from http_gateway.errors import InWordsOf
from http_gateway.families import COHERE
from http_gateway.long_list import LongList
from http_gateway.message import Answer, Request
from http_gateway.routes.cost import COST_HEADERS, cost_headers
from http_gateway.routes.embeddings import base64_of
from http_gateway.routes.inputs import check_count
from http_gateway.routes.model_routes import ModelRoutes
from http_gateway.routes.schemas import Some, Text
from http_gateway.routing import Route

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]

# The prompt of an input type is the first of these that the model has.
PROMPTS_OF_INPUT_TYPE = {
    "search_query": ("search_query", "query", "retrieval.query", "s2p_query"),
    "search_document": ("search_document", "document", "passage", "retrieval.passage"),
    "classification": ("classification",),
    "clustering": ("clustering", "separation"),
}

# Images are not taken, but a text may be meant for comparison with them.
INPUT_TYPES = (*PROMPTS_OF_INPUT_TYPE, "image")

TRUNCATIONS = {
    None: (inference_pb2.TRUNCATION_UNSPECIFIED, inference_pb2.TRUNCATION_SIDE_UNSPECIFIED),
    "NONE": (inference_pb2.TRUNCATION_REFUSE, inference_pb2.TRUNCATION_SIDE_UNSPECIFIED),
    "START": (inference_pb2.TRUNCATION_ALLOW, inference_pb2.TRUNCATION_SIDE_LEFT),
    "END": (inference_pb2.TRUNCATION_ALLOW, inference_pb2.TRUNCATION_SIDE_RIGHT),
}

# The data type of the contract, and how its bytes are read.
QUANTIZED = {
    "int8": (tensor_pb2.DATA_TYPE_INT8, np.dtype(np.int8)),
    "uint8": (tensor_pb2.DATA_TYPE_UINT8, np.dtype(np.uint8)),
    "binary": (tensor_pb2.DATA_TYPE_BINARY, np.dtype(np.int8)),
    "ubinary": (tensor_pb2.DATA_TYPE_UBINARY, np.dtype(np.uint8)),
}


class TextContent(msgspec.Struct):
    text: str
    type: Literal["text"] = "text"


class Input(msgspec.Struct):
    """Texts of one input are joined by line ends; images are not taken."""

    content: list[TextContent]


class CohereEmbedBody(msgspec.Struct):
    texts: Annotated[list[Text], Some] | None = None
    inputs: Annotated[list[Input], Some] | None = None
    model: str | None = None
    input_type: str | None = None
    embedding_types: list[EmbeddingType] | None = None  # float when absent
    truncate: Literal["NONE", "START", "END"] | None = (
        None  # as the server is set up when absent: END, unless an operator changed it
    )
    output_dimension: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] | None = None


class CohereEmbedAnswer(msgspec.Struct):
    id: str
    embeddings: dict[EmbeddingType, list[list[float] | str]]  # texts are base64
    texts: list[str]
    meta: dict[str, Any]
    response_type: Literal["embeddings_by_type"]


EXAMPLE = {"texts": ["What is deep learning?"], "input_type": "search_query", "embedding_types": ["float", "int8"]}


class CohereEmbed(ModelRoutes):
    def routes(self) -> list[Route]:
        return [
            post(
                "/v2/embed",
                CohereEmbedBody,
                self.embed,
                answer=CohereEmbedAnswer,
                example=EXAMPLE,
                family=COHERE,
                headers=COST_HEADERS,
            )
        ]

    async def embed(self, body: CohereEmbedBody, request: Request) -> Answer:
        """Embeddings of texts, in one or several data types."""
        texts, field = texts_of(body)
        check_count(len(texts), self.inputs_max, field, "texts")
        client = self.models.find(body.model).client
        model = await client.get_model(request.options())
        truncation, side = TRUNCATIONS[body.truncate]
        call = inference_pb2.EmbedRequest(
            inputs=[inference_pb2.Input(text=text) for text in texts],
            truncation=truncation,
            truncation_side=side,
            prompt_name=prompt_name(body.input_type, model),
            dimensions=body.output_dimension or 0,
        )
        with InWordsOf({"inputs": field, "dimensions": "output_dimension"}):
            answer = await client.embed(call, request.options())
        table = tensors.from_proto(answer.embeddings)
        tokens = answer.usage.tokens
        value = {
            "id": request.id,
            "embeddings": {name: rows_as(name, table) for name in body.embedding_types or ["float"]},
            "texts": LongList(texts),
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}},
            "response_type": "embeddings_by_type",
        }
        return Answer(value, cost_headers(request, answer.usage, answer.timings))


def texts_of(body: CohereEmbedBody) -> tuple[list[str], str]:
    """The texts, and the field that they came in. Raises INVALID_INPUT for none, and for two kinds of them."""
    if (body.texts is None) == (body.inputs is None):
        raise HeddleError(ErrorKind.INVALID_INPUT, "texts or inputs is required, and not both", field="texts")
    if body.texts is not None:
        return body.texts, "texts"
    return ["\n".join(part.text for part in item.content) for item in body.inputs or ()], "inputs"


def prompt_name(input_type: str | None, model: model_pb2.Model) -> str:
    """Of the model's prompts; "", which is its default, where it has none for such inputs. An input type may also be
    the name of a prompt itself. Raises INVALID_INPUT for any other."""
    possible = dict.fromkeys((*INPUT_TYPES, *model.prompt_names))
    if input_type and input_type not in possible:
        message = f"input_type: there is no {input_type!r}, it is one of {', '.join(possible)}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="input_type")
    names: Iterable[str] = PROMPTS_OF_INPUT_TYPE.get(input_type or "", (input_type or "",))
    return next((name for name in names if name in model.prompt_names), "")


def rows_as(name: EmbeddingType, table: tensors.Floats) -> LongList:
    """`table` is float32 [texts, dimension]."""
    if name == "float":
        return LongList(table)
    if name == "base64":
        return LongList(table, lambda row: base64_of(row.data))
    data_type, dtype = QUANTIZED[name]
    return LongList(table, lambda row: np.frombuffer(tensors.encoded(row, data_type), dtype))
