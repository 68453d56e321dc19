"""The paths of Baseten's edge and of KServe resolve to routes, and other paths are left alone."""

import pytest

from http_gateway.api.families import OPENAI
from http_gateway.api.path_aliases import resolve_path
from http_gateway.web.routing import Route, Router, not_found
from tests.http_gateway.calls import make_request


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/environments/production/sync/v1/embeddings", "/v1/embeddings"),
        ("/environments/my-env/sync/rerank", "/rerank"),
        ("/production/sync/predict", "/predict"),
        ("/development/sync/health", "/health"),
        ("/deployment/abc/sync/predict_tokens", "/predict_tokens"),
        ("/environments/production/sync", "/"),
        ("/v1/models/model", "/ready"),
        ("/v1/models/sync", "/v1/models/sync"),
        ("/environments/production/synchro/x", "/environments/production/synchro/x"),
        ("/predict", "/predict"),
        ("/x/production/sync/predict", "/x/production/sync/predict"),
        ("/environments/production/predict", "/default"),
        ("/production/predict", "/default"),
        ("/development/predict", "/default"),
        ("/v1/models/model:predict", "/default"),
        ("/openai/v1/embeddings", "/v1/embeddings"),
        ("/openai/v1/models/one", "/v1/models/one"),
        ("/openai/v2/embed", "/openai/v2/embed"),
        ("/openai/deployments/one/embeddings", "/openai/deployments/one/embeddings"),
    ],
)
def test_the_deployment_is_left_out_and_predict_is_the_default_route(path: str, meant: str) -> None:
    assert resolve_path(path, "/default") == meant


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/environments/production/predict/", "/embed"),
        ("/v1/models/model:predict/", "/embed"),
        ("/production/predict//", "/embed"),
        ("/environments/production/sync/rerank/", "/rerank"),
        ("/environments/production/sync/", "/"),
        ("//", "/"),
        ("/rerank/", "/rerank"),
        ("//rerank", "/rerank"),
        ("///production/sync//rerank", "/rerank"),
    ],
)
def test_slashes_at_either_end_make_no_difference(path: str, route: str) -> None:
    routes = [Route("POST", known, not_found, OPENAI) for known in ("/embed", "/rerank", "/")]
    router = Router(routes, OPENAI, lambda path: resolve_path(path, "/embed"))
    assert router.find(make_request(path)).path == route
