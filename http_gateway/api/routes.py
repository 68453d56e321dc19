"""Every route of the gateway. `http_gateway.__main__` gives them to the router."""

from heddle.telemetry.metrics import Metrics
from http_gateway.api.cohere import Cohere
from http_gateway.api.model_task import ModelTask
from http_gateway.api.models import Models
from http_gateway.api.ollama import Ollama
from http_gateway.api.openai_embeddings import OpenAIEmbeddings
from http_gateway.api.operations import Docs, Operations
from http_gateway.api.rerank import Rerank
from http_gateway.api.served_models import ServedModels
from http_gateway.api.tei_embed import TEIEmbed
from http_gateway.api.tei_predict import TEIPredict
from http_gateway.api.tei_predict_tokens import TEIPredictTokens
from http_gateway.api.tei_tokenize import TEITokenize
from http_gateway.api.vllm import VLLMClassify
from http_gateway.api.vllm_pooling import VLLMPooling
from http_gateway.api.vllm_score import VLLMScore
from http_gateway.settings import GatewaySettings
from http_gateway.web.routing import JsonHandler, Route


def build_routes(models: ServedModels, settings: GatewaySettings, metrics: Metrics) -> list[Route]:
    inputs_max = settings.request_inputs_max
    embeddings = OpenAIEmbeddings(models, inputs_max, settings.trust_token_ids)
    predict_tokens = TEIPredictTokens(models, inputs_max)
    tei_and_cohere = [
        *TEIEmbed(models, inputs_max).routes(),
        *Rerank(models, inputs_max).routes(),
        *Cohere(models, inputs_max).routes(),
        *TEIPredict(models, inputs_max).routes(),
        *predict_tokens.routes(),
        *TEITokenize(models, inputs_max).routes(),
    ]
    main = [*embeddings.routes(), *tei_and_cohere]
    tasks = {route.path: route.handler for route in main if isinstance(route.handler, JsonHandler)}
    tasks["/predict_tokens"] = predict_tokens.pipeline_task()
    described = [
        *main,
        *Ollama(models, inputs_max, embeddings).routes(),
        *VLLMScore(models, inputs_max).routes(),
        *VLLMClassify(models, inputs_max).routes(),
        *VLLMPooling(models, inputs_max, embeddings).routes(),
        *ModelTask(models, inputs_max, tasks).routes(),
        *Models(models, inputs_max, settings.requests_max).routes(),
        *Operations(models, metrics).routes(),
    ]
    return [*described, *Docs(described, models, settings.default_route).routes()]
