"""Ollama's routes for embeddings: POST /api/embed, POST /api/embeddings (the older form) and GET /api/tags.

https://docs.ollama.com/api
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from heddle import tensors
from heddle.v1 import inference_pb2
from http_gateway.api.cost import COST_HEADERS, cost_headers
from http_gateway.api.embeddings import Embeddings, EmbeddingsBody
from http_gateway.api.families import OLLAMA
from http_gateway.api.inputs import Dimensions, TokensMax
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.schemas import Some, Text
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Route, get, post


class ModelOptions(msgspec.Struct):
    """num_ctx is the only option that changes an embedding. Options of text generation are ignored."""

    num_ctx: TokensMax | None = None  # limit of tokens per text; the model's limit when absent


class OllamaBody(msgspec.Struct, kw_only=True):
    """`keep_alive` is ignored: a served model stays loaded."""

    model: str | None = None
    options: ModelOptions | None = None

    @property
    def tokens_max(self) -> int | None:
        return self.options.num_ctx if self.options else None


class OllamaEmbedBody(OllamaBody, kw_only=True):
    input: Text | Annotated[list[Text], Some]
    truncate: bool | None = None
    dimensions: Dimensions | None = None


class OllamaPromptBody(OllamaBody, kw_only=True):
    prompt: Text


class OllamaEmbedAnswer(msgspec.Struct):
    model: str
    embeddings: list[list[float]]
    total_duration: int  # nanoseconds
    load_duration: int  # nanoseconds
    prompt_eval_count: int  # tokens


class OllamaPromptAnswer(msgspec.Struct):
    embedding: list[float]  # not normalised


class OllamaModel(msgspec.Struct):
    name: str
    model: str
    modified_at: str  # when the gateway started
    size: int  # bytes; unknown here
    digest: str
    details: dict[str, Any]


class OllamaTags(msgspec.Struct):
    models: list[OllamaModel]


PROMPT_OF_INPUT = RenamedFields({"input": "prompt"}, is_list=False)
EXAMPLE = {"model": "all-minilm", "input": ["Why is the sky blue?", "Why is the grass green?"]}
PROMPT_EXAMPLE = {"model": "all-minilm", "prompt": "Why is the sky blue?"}


@dataclass(frozen=True, slots=True)
class Ollama(ModelRoutes):
    embeddings: Embeddings

    def routes(self) -> list[Route]:
        return [
            post(
                *("/api/embed", OllamaEmbedBody, self.embed),
                answer=OllamaEmbedAnswer,
                example=EXAMPLE,
                family=OLLAMA,
                headers=COST_HEADERS,
            ),
            post(
                *("/api/embeddings", OllamaPromptBody, self.embed_prompt),
                answer=OllamaPromptAnswer,
                example=PROMPT_EXAMPLE,
                family=OLLAMA,
                headers=COST_HEADERS,
            ),
            get("/api/tags", self.tags, answer=OllamaTags, family=OLLAMA),
        ]

    async def embed(self, body: OllamaEmbedBody, request: Request) -> Answer:
        """Embeddings, for Ollama's clients."""
        texts: Any = body.input
        answer = await self.embeddings.call_embed(
            EmbeddingsBody(
                input=texts,
                model=body.model,
                truncate=body.truncate,
                truncate_prompt_tokens=body.tokens_max,
                dimensions=body.dimensions,
            ),
            request,
        )
        value = {
            "model": self.models.find(body.model).name,
            "embeddings": LongList(tensors.from_proto(answer.embeddings)),
            "total_duration": 1000 * answer.timings.total_us,
            "load_duration": 0,
            "prompt_eval_count": answer.usage.tokens,
        }
        return with_cost(value, answer, request)

    async def embed_prompt(self, body: OllamaPromptBody, request: Request) -> Answer:
        """One embedding without normalisation, for Ollama's older clients."""
        wanted = EmbeddingsBody(
            input=body.prompt, model=body.model, truncate_prompt_tokens=body.tokens_max, normalize=False
        )
        with PROMPT_OF_INPUT:
            answer = await self.embeddings.call_embed(wanted, request)
        return with_cost({"embedding": tensors.from_proto(answer.embeddings)[0]}, answer, request)

    async def tags(self, _: Request) -> Answer:
        """The models that are served, in Ollama's shape."""
        since = datetime.fromtimestamp(self.models.created, UTC).isoformat()
        return Answer({"models": [tag_entry(name, since) for name in self.models.names()]})


def with_cost(value: dict[str, Any], answer: inference_pb2.EmbedResponse, request: Request) -> Answer:
    return Answer(value, cost_headers(request, answer.usage, answer.timings))


def tag_entry(name: str, since: str) -> dict[str, Any]:
    return {"name": name, "model": name, "modified_at": since, "size": 0, "digest": "", "details": {}}
