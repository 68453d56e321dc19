"""Weights in pytorch_model.bin: the tensors are those that torch reads, and no code of the pickle runs."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertModel

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import write_bert
from tests.damaged_files import SUBSTITUTES
from tests.engine_svc.models.file_forms import (
    PICKLED,
    add_foreign_tensors,
    add_prefix,
    pickle_before_torch_1_6,
    pickle_state_dict,
    pickle_weights,
    use_tensorflow_names,
    write_pickled_shards,
)
from tests.engine_svc.models.packed import ALL_LENGTHS, random_batch
from tests.sequences import run_each


def write_as_before_2020(folder: Path) -> None:
    for change in (add_foreign_tensors, use_tensorflow_names, add_prefix, pickle_before_torch_1_6):
        change(folder)


def open_weights(folder: Path) -> Weights:
    return Weights(folder, dtype=torch.float32, device=torch.device("cpu"))


def assert_taken(folder: Path, tensors: dict[str, Tensor]) -> None:
    weights = open_weights(folder)
    for name, tensor in tensors.items():
        assert torch.equal(weights.load(name, tensor.shape), tensor.float()), name


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("block_bytes", [1, 8 << 20])
def test_tensors_are_those_that_were_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, *, is_zip: bool
) -> None:
    monkeypatch.setattr("engine_svc.models.stored_tensors.BLOCK_BYTES", block_bytes)
    table = torch.randn(6, 5)
    tensors = {
        "plain": torch.randn(7, 3),
        "half": torch.randn(7, 3).half(),
        "short": torch.randn(7, 3).bfloat16(),
        "double": torch.randn(7, 3).double(),
        "transposed": table.T,
        "tied": table,
        "part": table[2:, 1:3],
        "parameter": torch.nn.Parameter(torch.randn(4)).detach(),
    }
    torch.save(tensors, tmp_path / PICKLED, _use_new_zipfile_serialization=is_zip)
    assert_taken(tmp_path, tensors)
    assert torch.equal(
        open_weights(tmp_path).load_rows("plain", [7, 3], [5, 0], torch.float32), tensors["plain"][[5, 0]]
    )


@pytest.mark.parametrize("write", [pickle_weights, pickle_state_dict, write_pickled_shards, write_as_before_2020])
def test_model_is_that_of_its_safetensors(tmp_path: Path, write: Callable[[Path], None]) -> None:
    model = write_bert(tmp_path)
    batch = random_batch(ALL_LENGTHS)
    expected = run_each(TorchBackend(Checkpoint.read(tmp_path), dtype="float32"), batch)
    write(tmp_path)
    reference = BertModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(reference[name], tensor) for name, tensor in model.state_dict().items())
    for ours, theirs in zip(
        run_each(TorchBackend(Checkpoint.read(tmp_path), dtype="float32"), batch), expected, strict=True
    ):
        assert (ours == theirs).all()


class Evil:
    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._witness),)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, *, is_zip: bool) -> None:
    witness = tmp_path / "witness"
    content = {"plain": torch.ones(2), "evil": Evil(witness)}
    torch.save(content, tmp_path / PICKLED, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin needs code to be read \(\S*mkdir\)") as caught:
        open_weights(tmp_path)
    assert not witness.exists()
    assert "\n" not in str(caught.value)
    torch.load(tmp_path / PICKLED, weights_only=False)
    assert witness.exists()  # the code works if it is run


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"PK\x03\x04" + b"\0" * 100, b"something else", b"\x80\x02]."])
def test_broken_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PICKLED).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin") as caught:
        open_weights(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", SUBSTITUTES)
def test_leftovers_of_failed_downloads_are_recognised(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PICKLED).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"pytorch_model\.bin {SUBSTITUTES[content]}"):
        open_weights(tmp_path)


def test_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path)
    pickle_weights(tmp_path)
    path = tmp_path / PICKLED
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin cannot be read"):
        open_weights(tmp_path)


@pytest.mark.parametrize("content", [[torch.ones(2)], {"epoch": 3, "state_dict": {}}, torch.ones(2)])
def test_file_without_tensors_by_name_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / PICKLED)
    with pytest.raises(CheckpointError, match="does not hold a dictionary of tensors"):
        open_weights(tmp_path)


def test_integers_are_not_taken_for_weights(tmp_path: Path) -> None:
    torch.save({"codes": torch.ones(4, dtype=torch.int8)}, tmp_path / PICKLED)
    with pytest.raises(CheckpointError, match="codes is I8; quantized weights are not supported"):
        open_weights(tmp_path).load("codes", [4])
