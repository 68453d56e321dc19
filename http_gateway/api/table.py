"""Every route of the gateway. `http_gateway.__main__` gives them to the router."""

from http_gateway.api.azure import Azure
from http_gateway.api.by_kind import ByKind
from http_gateway.api.classification import Classification
from http_gateway.api.classify import Classify
from http_gateway.api.cohere_embed import CohereEmbed
from http_gateway.api.cohere_tools import CohereTools
from http_gateway.api.docs import Docs
from http_gateway.api.embeddings import Embeddings
from http_gateway.api.entities import Entities
from http_gateway.api.info import Info
from http_gateway.api.models import Models
from http_gateway.api.ollama import Ollama
from http_gateway.api.operations import Operations
from http_gateway.api.pooling import Pooling
from http_gateway.api.rerank import Rerank
from http_gateway.api.scoring import Scoring
from http_gateway.api.served_models import ServedModels
from http_gateway.api.token_pipeline import TokenPipeline
from http_gateway.api.tokens import Tokens
from http_gateway.api.vectors import Vectors
from http_gateway.settings import GatewaySettings
from http_gateway.web.routing import JsonHandler, Route


def routes(models: ServedModels, settings: GatewaySettings) -> list[Route]:
    inputs_max = settings.request_inputs_max
    embeddings = Embeddings(models, inputs_max, settings.trust_token_ids)
    classification, entities = Classification(models, inputs_max), Entities(models, inputs_max)
    asking = [
        *embeddings.routes(),
        *Vectors(models, inputs_max).routes(),
        *Rerank(models, inputs_max).routes(),
        *CohereEmbed(models, inputs_max).routes(),
        *CohereTools(models, inputs_max).routes(),
        *classification.routes(),
        *entities.routes(),
        *Tokens(models, inputs_max).routes(),
    ]
    tasks = {route.path: route.handler for route in asking if isinstance(route.handler, JsonHandler)}
    by_kind = tasks | {"/predict_tokens": TokenPipeline(models, inputs_max).task()}
    described = [
        *asking,
        *Azure(embeddings).routes(),
        *Ollama(models, inputs_max, embeddings).routes(),
        *Scoring(models, inputs_max).routes(),
        *Classify(models, inputs_max).routes(),
        *Pooling(models, inputs_max, embeddings, classification, entities).routes(),
        *ByKind(models, inputs_max, by_kind).routes(),
        *Models(models, settings.requests_max).routes(),
        *Info(models, inputs_max, settings.requests_max).routes(),
        *Operations(models).routes(),
    ]
    return [*described, *Docs(described).routes()]
