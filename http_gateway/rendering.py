"""Vectors as JSON, straight from the bytes that the engine sent. Called by the routes.

orjson writes float32 in its shortest form: 4.7 kB and 9 us for 384 components, where a detour over Python floats takes
8 kB and 22 us. The parts of a large answer are written in turns with other requests.
"""

import asyncio
import binascii
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import orjson

Encoding = Literal["float", "base64"]

# About a millisecond of writing, for which others have to wait.
COMPONENTS_PER_TURN = 32_768


async def embedding_list(vectors: bytes, rows: int, encoding: Encoding, *, model: str, tokens: int) -> bytes:
    """OpenAI's list of embeddings. `vectors` is float32 little-endian [rows, dimension], row-major."""
    table = np.frombuffer(vectors, "<f4").reshape(rows, -1)
    turn = max(1, COMPONENTS_PER_TURN // table.shape[1])
    parts = []
    for start in range(0, rows, turn):
        if start:
            await asyncio.sleep(0)
        parts.append(items_json(table[start : start + turn], start, encoding))
    usage = orjson.dumps({"model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
    return b'{"object":"list","data":[%b],%b' % (b",".join(parts), usage[1:])


def items_json(table: npt.NDArray[np.float32], start: int, encoding: Encoding) -> bytes:
    """The items of a JSON array, without its brackets; the first has the index `start`."""
    rows: Sequence[object] = base64_rows(table) if encoding == "base64" else list(table)
    items = [{"object": "embedding", "embedding": row, "index": index} for index, row in enumerate(rows, start)]
    return orjson.dumps(items, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def base64_rows(table: npt.NDArray[np.float32]) -> list[str]:
    return [binascii.b2a_base64(row, newline=False).decode("ascii") for row in table]
