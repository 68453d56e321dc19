"""POST /openai/deployments/{model}/embeddings of Azure OpenAI: /v1/embeddings with the model in the path.

https://learn.microsoft.com/azure/ai-services/openai/reference#embeddings
"""

from http_gateway.api.cost import COST_HEADERS
from http_gateway.api.embeddings import EXAMPLE, Embeddings, EmbeddingsAnswer, EmbeddingsBody
from http_gateway.web.message import Answer, Request
from http_gateway.web.routing import Route, post


class Azure:
    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    def routes(self) -> list[Route]:
        path = "/openai/deployments/{model}/embeddings"
        return [post(path, EmbeddingsBody, self.embed, answer=EmbeddingsAnswer, example=EXAMPLE, headers=COST_HEADERS)]

    async def embed(self, body: EmbeddingsBody, request: Request) -> Answer:
        """Embeddings by the deployment that the path names, for Azure's clients."""
        body.model = request.parameter  # Azure ignores the body's `model` too
        return await self._embeddings.embed(body, request)
