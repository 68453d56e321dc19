"""A checkpoint folder without weights, for the tests of what its files say."""

from pathlib import Path
from typing import Any

from tests.checkpoints import SMALL_BERT, write_json

CONFIG = {**SMALL_BERT, "architectures": ["BertModel"], "model_type": "bert"}


def with_config(folder: Path, **changes: Any) -> Path:
    write_json(folder / "config.json", {**CONFIG, **changes})
    return folder
