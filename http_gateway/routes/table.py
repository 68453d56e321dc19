"""Every route of the gateway. `http_gateway.__main__` gives them to the router."""

from http_gateway.endpoint import Task
from http_gateway.routes.by_kind import ByKind
from http_gateway.routes.classification import Classification
from http_gateway.routes.cohere_embed import CohereEmbed
from http_gateway.routes.cohere_tools import CohereTools
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
    asking = [
        *Embeddings(models, inputs_max, settings.trust_token_ids).routes(),
        *Vectors(models, inputs_max).routes(),
        *Rerank(models, inputs_max).routes(),
        *CohereEmbed(models, inputs_max).routes(),
        *CohereTools(models, inputs_max).routes(),
        *Classification(models, inputs_max).routes(),
        *Entities(models, inputs_max).routes(),
        *Tokens(models, inputs_max).routes(),
    ]
    tasks = {route.path: route.handler for route in asking if isinstance(route.handler, Task)}
    described = [
        *asking,
        *ByKind(models, inputs_max, tasks).routes(),
        *Models(models).routes(),
        *Info(models, inputs_max, settings.requests_max).routes(),
        *Operations(models).routes(),
    ]
    return [*described, *Docs(described).routes()]
