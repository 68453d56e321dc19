"""Checkpoints as large as real ones, all zeros, written in no time: a header and a hole make the file of weights."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.checkpoints import write_json


def write_hollow(folder: Path, config: Mapping[str, object], shapes: Mapping[str, Sequence[int]]) -> None:
    """In float32, as config.json and model.safetensors."""
    write_json(folder / "config.json", config)
    header, stop = {}, 0
    for name, shape in shapes.items():
        start, stop = stop, stop + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + stop)
