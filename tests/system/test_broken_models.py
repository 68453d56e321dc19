"""`heddle serve` with a model that cannot be served: one line that says why, exit code 2, and no process left."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from heddle.model_source import packaged_folder

pytestmark = pytest.mark.slow


def truncate_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])


def leave_only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


BREAKAGES: list[tuple[Callable[[Path], object], str]] = [
    (shutil.rmtree, "there is no model folder"),
    (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json cannot be used"),
    (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    (truncate_weights, "model.safetensors"),
    (leave_only_a_pickle, "safetensors"),
]


@pytest.mark.parametrize(("break_", "words"), BREAKAGES, ids=range(len(BREAKAGES)))
async def test_a_broken_model_is_one_clear_line(tmp_path: Path, break_: Callable[[Path], object], words: str) -> None:
    whole = packaged_folder()
    assert whole
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    break_(folder)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heddle", "serve", "--http-port", "0", "--grpc-port", "0", "--model", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert process.returncode == 2, errors.decode()
    assert output == b""
    told = [line for line in errors.decode().splitlines() if words in line]
    assert len(told) == 1
    assert "Traceback" not in errors.decode()
