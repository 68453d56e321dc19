"""Reading weights: old names, all data types, broken files, and little memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine_svc.models.weights import Weights
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import write_bert
from tests.damaged_files import SUBSTITUTES

CPU = torch.device("cpu")
WORDS = "embeddings.word_embeddings.weight"
NORM = "embeddings.LayerNorm.weight"


def open_weights(folder: Path, dtype: torch.dtype = torch.float32) -> Weights:
    return Weights(folder, dtype=dtype, device=CPU, prefix="bert.")


def test_shards_read_as_one_file(tmp_path: Path) -> None:
    model = write_bert(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    weights = open_weights(tmp_path)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(weights.load(name, tensor.shape), tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_come_in_the_type_of_the_model(tmp_path: Path, dtype: torch.dtype) -> None:
    model = write_bert(tmp_path)
    taken = open_weights(tmp_path, dtype).load(WORDS, [97, 32])
    torch.testing.assert_close(taken, model.state_dict()[WORDS].to(dtype))


def test_tensors_survive_their_file(tmp_path: Path) -> None:
    model = write_bert(tmp_path)
    taken = open_weights(tmp_path).load(WORDS, [97, 32])
    (tmp_path / "model.safetensors").write_bytes(b"\0" * (tmp_path / "model.safetensors").stat().st_size)
    torch.testing.assert_close(taken, model.state_dict()[WORDS])


@pytest.mark.parametrize("block_bytes", [1, 5 * 4 * 32, 97 * 4 * 32])
def test_blocks_add_up_to_the_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    model = write_bert(tmp_path)
    monkeypatch.setattr("engine_svc.models.stored_tensors.BLOCK_BYTES", block_bytes)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(open_weights(tmp_path).load(name, tensor.shape), tensor)


def test_names_of_old_checkpoints_are_known(tmp_path: Path) -> None:
    model = write_bert(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({f"bert.{name.replace('.weight', '.gamma')}": tensors[name] for name in [NORM]}, tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "model.safetensors")
    torch.testing.assert_close(open_weights(tmp_path).load(NORM, [32]), model.state_dict()[NORM])


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    write_bert(tmp_path)
    with pytest.raises(CheckpointError, match=rf"{tmp_path} has no tensor embeddings\.nothing"):
        open_weights(tmp_path).load("embeddings.nothing", [1])


def test_other_shape_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor .* has shape \[97, 32\], expected \[32\]"):
        open_weights(tmp_path).load(WORDS, [32])


def test_integers_are_not_taken_for_weights(tmp_path: Path) -> None:
    save_file({"codes": torch.ones(4, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="quantized weights are not supported"):
        open_weights(tmp_path).load("codes", [4])


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no weights: neither model\.safetensors nor"):
        open_weights(tmp_path)


def test_shapes_are_checked_without_reading_the_weights(tmp_path: Path) -> None:
    write_bert(tmp_path)
    weights = Weights(tmp_path, dtype=torch.bfloat16, device=torch.device("meta"))
    taken = weights.load(WORDS, [97, 32])
    assert (taken.device.type, taken.shape, taken.dtype) == ("meta", (97, 32), torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"has shape \[97, 32\], expected \[98, 32\]"):
        weights.load(WORDS, [98, 32])


@pytest.mark.parametrize("kept", [5, 1000, 20_000])
def test_file_that_was_cut_off_is_refused(tmp_path: Path, kept: int) -> None:
    """Cuts before, in and after the header."""
    write_bert(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=rf"model\.safetensors is cut off: it has {kept} of \d+ bytes"):
        open_weights(tmp_path)


@pytest.mark.parametrize("content", SUBSTITUTES)
def test_leftovers_of_failed_downloads_are_recognised(tmp_path: Path, content: bytes) -> None:
    write_bert(tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{shard.name} {SUBSTITUTES[content]}"):
        open_weights(tmp_path)


def test_file_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not JSON")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a safetensors file: "):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["tf_model.h5"], "only tf_model.h5"),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            "only model-00001-of-00002.safetensors, model-00002-of-00002.safetensors without their index",
        ),
        (["a.ckpt", "b.gguf", "c.bin", "d.pt", "e.pth"], "only a.ckpt, b.gguf, c.bin and 2 more"),
    ],
)
def test_weights_in_other_formats_are_named(tmp_path: Path, files: list[str], named: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=rf"nor pytorch_model\.bin \({named}\)"):
        open_weights(tmp_path)


def test_half_of_the_names_with_a_prefix_of_data_parallel_are_left_alone(tmp_path: Path) -> None:
    """A model may have a part with that name."""
    save_file({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path)
    assert [name for name in ("module.a", "a", "b") if weights.has(name)] == ["module.a", "b"]


@pytest.mark.slow
def test_loading_needs_little_more_memory_than_the_model(tmp_path: Path) -> None:
    """The high-water mark of a process that takes 256 MiB in tensors of 16 MiB."""
    save_file({f"t{index}": torch.ones(2048, 2048) for index in range(16)}, tmp_path / "model.safetensors")
    code = f"""
import re, pathlib, torch
from engine_svc.models.weights import Weights
def kib(name): return int(re.search(name + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
before = kib("VmRSS")
weights = Weights(pathlib.Path({str(tmp_path)!r}), dtype=torch.float32, device=torch.device("cpu"))
taken = [weights.load(f"t{{index}}", [2048, 2048]) for index in range(16)]
print((kib("VmHWM") - before) / 2**10)
"""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert 250 < float(run.stdout) < 1.2 * 256
