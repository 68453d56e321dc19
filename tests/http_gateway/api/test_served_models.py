"""Every kind of model has an entry in the table, and a kind that is newer than the gateway gets a clear error."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.telemetry.metrics import Metrics
from heddle.v1 import model_pb2
from http_gateway.api.path_aliases import default_path
from http_gateway.api.routes import build_routes
from http_gateway.api.served_models import KINDS, ServedModels, find_kind
from http_gateway.errors import HTTP_STATUS_OF_KIND
from http_gateway.settings import GatewaySettings

NEWER = model_pb2.Model(kind=99)  # type: ignore[arg-type]  # such as a newer pod may report


def test_every_kind_of_the_contract_has_an_entry() -> None:
    assert KINDS.keys() == set(model_pb2.ModelKind.values()) - {model_pb2.MODEL_KIND_UNSPECIFIED}


def test_the_routes_of_every_kind_exist() -> None:
    paths = {
        route.path
        for route in build_routes(ServedModels({"": ["a:1"]}, strict_names=False), GatewaySettings(), Metrics())
    }
    assert paths >= {path for kind in KINDS.values() for path in (kind.path, kind.default_path)}


def test_a_newer_kind_is_refused_with_a_clear_error() -> None:
    with pytest.raises(HeddleError, match="does not know the model's kind") as refused:
        find_kind(NEWER)
    assert refused.value.kind is ErrorKind.WRONG_TASK
    assert HTTP_STATUS_OF_KIND[refused.value.kind] == 424


def test_the_default_route_for_a_newer_kind_or_an_unknown_model_is_openais() -> None:
    for model in (NEWER, None):
        models: Any = SimpleNamespace(first=SimpleNamespace(client=SimpleNamespace(model=model)))
        assert default_path(cast(ServedModels, models)) == "/v1/embeddings"
