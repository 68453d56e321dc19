"""A model's files for the tests of downloads: small, but with random weights of several parts."""

import hashlib
from pathlib import Path

from tests.checkpoints import write_json
from tests.heddle.checkpoint.bert_folder import CONFIG

CONFIGURATION = {"config.json", "tokenizer.json", "1_Pooling/config.json"}
WEIGHTS = "model.safetensors"
WEIGHTS_BYTES = 300_000


def write_model(folder: Path, seed: int = 0) -> Path:
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "tokenizer.json", {"model": seed})
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    write_weights(folder, seed)
    (folder / "README.md").write_text("A model.")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"onnx")
    return folder


def write_weights(folder: Path, seed: int) -> None:
    (folder / WEIGHTS).write_bytes(hashlib.shake_256(bytes([seed])).digest(WEIGHTS_BYTES))


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
