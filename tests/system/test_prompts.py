"""Pooling leaves out prompts where sentence-transformers does, from the request to the vector."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from engine_svc.backends.torch_backend import TorchBackend
from heddle.checkpoint import Checkpoint
from heddle.rpc.settings import ConfigurationError
from tests.checkpoints import SMALL_BERT, write_bert, write_tokenizer
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.kinds import http_of
from tokenizer_svc.__main__ import replace_default_prompt
from tokenizer_svc.settings import TokenizerSettings

PROMPTS = {"query": "w1 w2 w3 ", "document": "w4 ", "nothing": ""}
TEXTS = ["w5", "w6 w7 w8", "w9 " * 30, "w10 " * 200, "w1 w2 w3"]


def write_model(folder: Path, pooling: str, default: str | None, *, include_prompt: bool) -> SentenceTransformer:
    write_bert(folder / "bert")
    write_tokenizer(folder / "bert")
    modules = [
        Transformer(str(folder / "bert"), max_seq_length=SMALL_BERT["max_position_embeddings"]),
        Pooling(SMALL_BERT["hidden_size"], pooling, include_prompt=include_prompt),
        Normalize(),
    ]
    model = SentenceTransformer(modules=modules, device="cpu", prompts=dict(PROMPTS), default_prompt_name=default)
    model.save(str(folder / "model"))
    return model


async def assert_served_as(model: SentenceTransformer, folder: Path, requests: list[dict[str, Any]]) -> None:
    backend = TorchBackend(Checkpoint.read(folder / "model"), dtype="float32", device="cpu")
    async with http_of(folder, folder / "model", backend) as http:
        for named in requests:
            response = await http.post("/embed", json={"inputs": TEXTS, "truncate": True, **named})
            assert response.status_code == 200, response.text
            np.testing.assert_allclose(response.json(), model.encode(TEXTS, **named), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "weightedmean", "cls", "lasttoken"])
@pytest.mark.parametrize("include_prompt", [False, True], ids=["left out", "pooled"])
async def test_default_prompt_is_prepended_and_excluded_from_pooling_if_configured(
    tmp_path: Path, pooling: str, *, include_prompt: bool
) -> None:
    model = write_model(tmp_path, pooling, "query", include_prompt=include_prompt)
    requests: list[dict[str, Any]] = [{}, {"prompt_name": "document"}, {"prompt_name": "nothing"}]
    await assert_served_as(model, tmp_path, requests)


@pytest.mark.parametrize("setting", [{"default_prompt": "w4 "}, {"default_prompt_name": "document"}])
async def test_an_operator_sets_the_default_prompt(tmp_path: Path, setting: dict[str, Any]) -> None:
    model = write_model(tmp_path, "mean", "query", include_prompt=False)
    backend = TorchBackend(Checkpoint.read(tmp_path / "model"), dtype="float32", device="cpu")
    async with (
        engine_pod(tmp_path, backend, model=str(tmp_path / "model")) as engine,
        tokenizer_pod(tmp_path, engine, model=str(tmp_path / "model"), truncate=True, **setting) as tokenizer,
        gateway(tokenizer) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        response = await http.post("/embed", json={"inputs": TEXTS})
        np.testing.assert_allclose(response.json(), model.encode(TEXTS, prompt_name="document"), atol=1e-5)
        response = await http.post("/embed", json={"inputs": TEXTS, "prompt_name": "query"})
        np.testing.assert_allclose(response.json(), model.encode(TEXTS, prompt_name="query"), atol=1e-5)


def test_a_default_prompt_that_the_checkpoint_lacks_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, "mean", None, include_prompt=True)
    checkpoint = Checkpoint.read(tmp_path / "model", "mine")
    with pytest.raises(ConfigurationError, match="mine has no prompt 'passage'; it has: document, nothing, query"):
        replace_default_prompt(checkpoint, TokenizerSettings(default_prompt_name="passage"))
    with pytest.raises(ValueError, match="exclude each other"):
        TokenizerSettings(default_prompt_name="query", default_prompt="q: ")
