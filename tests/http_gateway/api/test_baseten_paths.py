"""Paths of Baseten's edge lead to the routes that they mean, and no other path is touched."""

import pytest
from httpx import Headers

from http_gateway.api.baseten_paths import is_default_route, without_deployment
from http_gateway.web.message import Request, Reserve
from http_gateway.web.routing import Route, Router, not_found


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
    ],
)
def test_the_deployment_is_left_out(path: str, meant: str) -> None:
    assert without_deployment(path) == meant


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
    routes = [Route("POST", known, not_found) for known in ("/embed", "/rerank", "/")]
    router = Router(routes, lambda: "/embed")
    assert router.find(Request("POST", path, Headers(), 0, nothing)).path == route


async def nothing(_: Reserve) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("path", "is_default"),
    [
        ("/environments/production/predict", True),
        ("/production/predict", True),
        ("/development/predict", True),
        ("/v1/models/model:predict", True),
        ("/predict", False),
        ("/environments/production/sync/predict", False),
    ],
)
def test_predictions_without_a_route_go_to_the_default_one(path: str, is_default: bool) -> None:
    assert is_default_route(path) is is_default
