"""GET /info tells TEI's clients what the model is, for every kind."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from httpx import Headers

from heddle.client import CallOptions
from heddle.model_source import PACKAGED_NAME
from heddle.v1 import model_pb2
from http_gateway.message import Hold, Request
from http_gateway.routes.info import Info
from tests.kinds import (
    EMOTIONS,
    TAGS,
    http_of,
    write_classifier,
    write_multi_vector_embedder,
    write_reranker,
    write_sparse_embedder,
)
from tests.kinds import write_token_classifier as write_tagger


async def test_an_embedder_names_its_pooling_and_limits(http: httpx.AsyncClient) -> None:
    info = (await http.get("/info")).json()
    assert info["model_id"] == PACKAGED_NAME
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["dimension"], info["max_client_batch_size"]) == (256, 384, 2048)
    assert (info["auto_truncate"], info["tokenization_workers"]) == (True, 1)
    assert (info["sha"], info["docker_label"]) == (None, None)
    assert (await http.get(f"/info/{PACKAGED_NAME}")).json() == info
    assert (await http.get("/info/gpt-2")).status_code == 404


@pytest.mark.parametrize(
    ("write", "kind", "labels"),
    [
        (write_classifier, "classifier", EMOTIONS),
        (write_reranker, "reranker", ["LABEL_0"]),
        (write_tagger, "token_classifier", TAGS),
    ],
)
async def test_classifiers_name_their_labels(
    tmp_path: Path, write: Callable[[Path], Path], kind: str, labels: Any
) -> None:
    async with http_of(tmp_path, write(tmp_path / "model")) as http:
        info = (await http.get("/info")).json()
        assert info["model_type"][kind]["id2label"] == {str(index): label for index, label in enumerate(labels)}
        assert info["model_type"][kind]["label2id"] == {label: index for index, label in enumerate(labels)}


@pytest.mark.parametrize(
    ("write", "pooling"), [(write_sparse_embedder, "splade"), (write_multi_vector_embedder, "none")]
)
async def test_an_embedder_of_another_kind_says_what_takes_the_place_of_pooling(
    tmp_path: Path, write: Callable[[Path], Path], pooling: str
) -> None:
    async with http_of(tmp_path, write(tmp_path / "model")) as http:
        assert (await http.get("/info")).json()["model_type"] == {"embedding": {"pooling": pooling}}


@pytest.mark.parametrize("refuses", [True, False])
async def test_whether_long_inputs_are_cut_is_as_the_pod_is_set(refuses: bool) -> None:
    described = model_pb2.Model(name="m", kind=model_pb2.MODEL_KIND_EMBEDDER)
    fields = {field.name: getattr(described, field.name) for field in model_pb2.Model.DESCRIPTOR.fields}
    model = SimpleNamespace(**{**fields, "refuses_long_inputs": refuses})

    async def get_model(_: CallOptions) -> Any:
        return model

    served = SimpleNamespace(name="m", client=SimpleNamespace(get_model=get_model))
    models: Any = SimpleNamespace(find=lambda _: served)
    answer = await Info(models, 2048, 2048).info(Request("GET", "/info", Headers(), 0, nothing))
    assert answer.value["auto_truncate"] is not refuses


async def nothing(_: Hold) -> bytes:
    return b""
