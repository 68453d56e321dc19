"""Vectors as JSON: the same float32 after parsing, the same bytes in base64, whatever the number of rows."""

import base64
import json

import numpy as np
import pytest

from http_gateway.rendering import COMPONENTS_PER_TURN, embedding_list


@pytest.mark.parametrize("rows", [1, 7, 2 * COMPONENTS_PER_TURN // 384])
async def test_every_component_survives(rows: int) -> None:
    table = np.random.default_rng(0).normal(size=(rows, 384)).astype(np.float32)
    for encoding in ("float", "base64"):
        answer = json.loads(await embedding_list(table.tobytes(), rows, encoding, model='a"b', tokens=5))
        assert [item["index"] for item in answer["data"]] == list(range(rows))
        assert (answer["model"], answer["usage"]["total_tokens"]) == ('a"b', 5)
        embeddings = [item["embedding"] for item in answer["data"]]
        if encoding == "base64":
            assert b"".join(map(base64.b64decode, embeddings)) == table.tobytes()
        else:
            assert np.array_equal(np.array(embeddings, np.float32), table)
