"""`heddle serve --quantization` gives vectors over HTTP that are close to those in 16 bit."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.checkpoints import write_old_modules, write_tokenizer
from tests.engine_svc.models.trained_like import DECODERS, write_decoder
from tests.system.served import served

pytestmark = pytest.mark.slow

TEXTS = ["w1 w2 w3 w4 w5", "w7", "w9 w9 w10 w11 w30 w40 w50"]


async def vectors(model: str, quantization: str) -> Any:
    async with served("--model", model, "--quantization", quantization) as server, httpx.AsyncClient() as client:
        response = await client.post(f"{server.url}/v1/embeddings", json={"model": model, "input": TEXTS})
    found = np.array([item["embedding"] for item in response.raise_for_status().json()["data"]])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


async def test_served_vectors_are_near_those_in_16_bit(tmp_path: Path) -> None:
    write_decoder(tmp_path, DECODERS[2])
    write_tokenizer(tmp_path)
    write_old_modules(tmp_path, ["Transformer", "Pooling"], {"pooling_mode_lasttoken": True})
    expected = await vectors(str(tmp_path), "no_quant")
    for quantization, closeness in {"fp8": 0.99, "fp4": 0.98, "weights_int8": 0.995}.items():
        cosines = (await vectors(str(tmp_path), quantization) * expected).sum(1)
        assert 0.99999 > cosines.min() >= closeness
