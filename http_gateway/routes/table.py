"""Every route of the gateway. `http_gateway.__main__` gives them to the router."""

from http_gateway.routes.by_kind import ByKind
from http_gateway.routes.classification import Classification
from http_gateway.routes.cohere_embed import CohereEmbed
from http_gateway.routes.docs import Docs
from http_gateway.routes.embeddings import Embeddings
from http_gateway.routes.entities import Entities
from http_gateway.routes.info import Info
from http_gateway.routes.models import Models
from http_gateway.routes.operations import Operations
from http_gateway.routes.rerank import Rerank
from http_gateway.routes.tokens import Tokens
from http_gateway.routes.vectors import Vectors
from http_gateway.routing import Route
from http_gateway.served_models import ServedModels
from http_gateway.settings import GatewaySettings


def routes(models: ServedModels, settings: GatewaySettings) -> list[Route]:
    inputs_max = settings.request_inputs_max
    vectors = Vectors(models, inputs_max=inputs_max)
    rerank = Rerank(models, inputs_max=inputs_max)
    classification = Classification(models, inputs_max=inputs_max)
    entities = Entities(models, inputs_max=inputs_max)
    described = [
        *Embeddings(models, inputs_max=inputs_max, trust_token_ids=settings.trust_token_ids).routes(),
        *Models(models).routes(),
        *vectors.routes(),
        *rerank.routes(),
        *CohereEmbed(models, inputs_max=inputs_max).routes(),
        *classification.routes(),
        *entities.routes(),
        *Tokens(models, inputs_max=inputs_max).routes(),
        *ByKind(models, vectors, rerank, classification, entities, inputs_max=inputs_max).routes(),
        *Info(models, inputs_max=inputs_max, requests_max=settings.requests_max).routes(),
        *Operations(models).routes(),
    ]
    return [*described, *Docs(described).routes()]
