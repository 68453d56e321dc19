"""Ollama's routes for embeddings: POST /api/embed, POST /api/embeddings (the older form) and GET /api/tags.

https://docs.ollama.com/api
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from heddle import tensors
from http_gateway.api.answers import answer_with_costs, post_with_costs
from http_gateway.api.families import OLLAMA
from http_gateway.api.openai_embeddings import EmbeddingsBody, OpenAIEmbeddings
from http_gateway.api.request_fields import Dimensions, Text, Texts, TokensMax
from http_gateway.api.served_models import ModelRoutes
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import Route, get


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
    input: Texts
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


RENAME_PROMPT = RenamedFields({"input": "prompt"}, is_list=False)
EXAMPLE = {"model": "all-minilm", "input": ["Why is the sky blue?", "Why is the grass green?"]}
PROMPT_EXAMPLE = {"model": "all-minilm", "prompt": "Why is the sky blue?"}


@dataclass(frozen=True, slots=True)
class Ollama(ModelRoutes):
    embeddings: OpenAIEmbeddings

    def routes(self) -> list[Route]:
        embed = "/api/embed", OllamaEmbedBody, self.embed
        embed_prompt = "/api/embeddings", OllamaPromptBody, self.embed_prompt
        return [
            post_with_costs(*embed, answer=OllamaEmbedAnswer, example=EXAMPLE, family=OLLAMA),
            post_with_costs(*embed_prompt, answer=OllamaPromptAnswer, example=PROMPT_EXAMPLE, family=OLLAMA),
            get("/api/tags", self.tags, answer=OllamaTags, family=OLLAMA),
        ]

    async def embed(self, body: OllamaEmbedBody, request: Request) -> Answer:
        """Embeddings, for Ollama's clients."""
        texts: Any = body.input  # a list of fewer types than EmbeddingsBody accepts
        embeddings_body = EmbeddingsBody(
            input=texts,
            model=body.model,
            truncate=body.truncate,
            truncate_prompt_tokens=body.tokens_max,
            dimensions=body.dimensions,
        )
        response = await self.embeddings.call_embed(embeddings_body, request)
        value = {
            "model": self.models.find(body.model).name,
            "embeddings": LazyList(tensors.from_proto(response.embeddings)),
            "total_duration": 1000 * response.timings.total_us,
            "load_duration": 0,
            "prompt_eval_count": response.usage.tokens,
        }
        return answer_with_costs(value, request, response)

    async def embed_prompt(self, body: OllamaPromptBody, request: Request) -> Answer:
        """One embedding without normalisation, for Ollama's older clients."""
        embeddings_body = EmbeddingsBody(
            input=body.prompt, model=body.model, truncate_prompt_tokens=body.tokens_max, normalize=False
        )
        with RENAME_PROMPT:
            response = await self.embeddings.call_embed(embeddings_body, request)
        return answer_with_costs({"embedding": tensors.from_proto(response.embeddings)[0]}, request, response)

    async def tags(self, _: Request) -> Answer:
        """The models that are served, in Ollama's shape."""
        unknown = {"size": 0, "digest": "", "details": {}}
        started = datetime.fromtimestamp(self.models.created, UTC).isoformat()
        entries = [{"name": name, "model": name, "modified_at": started, **unknown} for name in self.models.names()]
        return Answer({"models": entries})
