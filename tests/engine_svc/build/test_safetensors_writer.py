"""Written files are valid safetensors, and depend only on the plan and the tensors."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from engine_svc.build.formats import TensorSpec
from engine_svc.build.safetensors_writer import ALIGNMENT, FileWriter, PlannedFile, make_index, plan_files
from tests.engine_svc.build.building import read_tensors

TENSORS = {
    "weight": torch.randn(3, 32),
    "one": torch.tensor([1.5]),
    "number": torch.tensor(2.5),
    "small": torch.randn(3, 5).to(torch.float8_e4m3fn),
    "half": torch.randn(7, 3).to(torch.bfloat16),
    "packed": torch.arange(64, dtype=torch.uint8).view(2, 32),
    "integers": torch.tensor([[-3, 2], [1, 0]]),
    "empty": torch.empty(0, 4),
}


def specs(tensors: dict[str, Tensor]) -> list[TensorSpec]:
    return [TensorSpec(name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()]


def write(folder: Path, files: list[PlannedFile], tensors: dict[str, Tensor]) -> None:
    with FileWriter(folder, files) as writer:
        for name, tensor in tensors.items():
            assert writer.write(name, tensor) == tensor.nbytes


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    write(tmp_path, plan_files([specs(TENSORS)], None), TENSORS)
    read = read_tensors(tmp_path / "model.safetensors")
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].float(), tensor.float()), name


def test_bytes_do_not_depend_on_the_order_of_writing(tmp_path: Path) -> None:
    for folder, names in (("one", list(TENSORS)), ("other", list(reversed(TENSORS)))):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, plan_files([specs(TENSORS)], None), {name: TENSORS[name] for name in names})
    one, other = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("one", "other"))
    assert one == other


def test_rows_can_be_written_separately(tmp_path: Path) -> None:
    files = plan_files([specs({"weight": TENSORS["weight"]})], None)
    with FileWriter(tmp_path, files) as writer:
        writer.write("weight", TENSORS["weight"][1:], TENSORS["weight"][:1].nbytes)
        writer.write("weight", TENSORS["weight"][:1])
    assert torch.equal(read_tensors(tmp_path / "model.safetensors")["weight"], TENSORS["weight"])


def test_tensors_are_aligned_and_lie_in_the_order_of_the_plan() -> None:
    [file] = plan_files([specs(TENSORS)], None)
    assert len(file.header) % ALIGNMENT == 0
    for name, tensor in TENSORS.items():
        assert file.offsets[name] % min(ALIGNMENT, tensor.element_size()) == 0
    even = [name for name, tensor in TENSORS.items() if tensor.nbytes % ALIGNMENT == 0]
    assert even == sorted(even, key=lambda name: file.offsets[name])
    assert all(file.offsets[name] % ALIGNMENT == 0 for name in even)


def test_files_have_at_most_the_stated_size_and_keep_groups_together(tmp_path: Path) -> None:
    tensors = {f"{group}.{part}": torch.full((16, 16), float(group)) for group in range(3) for part in "qkv"}
    groups = [[spec for spec in specs(tensors) if spec.name.startswith(str(group))] for group in range(3)]
    files = plan_files(groups, 2 * 3 * 16 * 16 * 4)
    assert [file.name for file in files] == [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    assert [len(file.offsets) for file in files] == [6, 3]
    write(tmp_path, files, tensors)
    index = json.loads(make_index(files))
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    for name, tensor in tensors.items():
        with safe_open(tmp_path / index["weight_map"][name], framework="pt") as file:
            assert torch.equal(file.get_tensor(name), tensor)


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        FileWriter(tmp_path, plan_files([specs(TENSORS)], None))
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"
