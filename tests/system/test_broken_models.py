"""`heddle serve` with a model that cannot be served prints one line that says why, exits with code 2, and leaves no
process behind."""

import asyncio
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from heddle.checkpoint.model_source import packaged_folder

pytestmark = pytest.mark.slow


def truncate_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])


def leave_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()


def leave_only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"embeddings.word_embeddings.weight": Path("/")}))


def change_config(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


BREAKAGES: list[tuple[Callable[[Path], object], str]] = [
    (shutil.rmtree, "there is no model folder"),
    (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json cannot be used"),
    (leave_no_tokenizer, "has no tokenizer.json, and no files to build a BertTokenizer from"),
    (truncate_weights, "model.safetensors"),
    (leave_only_a_pickle, "pytorch_model.bin"),
    (change_config(model_type="mamba"), "config.json: model type mamba is not supported"),
    (change_config(num_hidden_layers=7), "has no tensor encoder.layer.6."),
    (change_config(intermediate_size=1000), "model.safetensors: tensor encoder.layer.0.intermediate.dense."),
]


@pytest.mark.parametrize(("break_", "words"), BREAKAGES, ids=range(len(BREAKAGES)))
async def test_a_broken_model_is_one_clear_line(tmp_path: Path, break_: Callable[[Path], object], words: str) -> None:
    whole = packaged_folder()
    assert whole
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    break_(folder)
    await check_refusal(words, "--model", str(folder))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--device", "cuda:99"], "device cuda:99: PyTorch "),
        (["--quantization", "fp8"], "--quantization fp8 is for decoders, not for bert"),
    ],
)
async def test_a_setting_that_the_machine_or_the_model_does_not_allow_is_one_clear_line(
    flags: list[str], words: str
) -> None:
    await check_refusal(words, *flags)


async def check_refusal(words: str, *flags: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heddle", "serve", "--http-port", "0", "--grpc-port", "0", *flags),
        *("--log-level", "info"),
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
    # No port that others can reach has been opened: engines listen on sockets, the tokenizer once it has its model.
    assert not any("listening" in line for line in errors.decode().splitlines() if not line.startswith("engine: "))
    assert not (told[0].startswith("engine: ") and "listening" in errors.decode())
