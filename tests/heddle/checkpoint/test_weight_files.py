"""Which weight files are used if a folder has several: the same as in transformers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertModel

from heddle.checkpoint.damaged_files import explain_safetensors
from heddle.checkpoint.json_files import CheckpointError, read_json
from heddle.checkpoint.weight_files import FILES, find_weight_files, read_shapes
from tests.checkpoints import write_bert, write_json
from tests.damaged_files import SUBSTITUTES
from tests.engine_svc.models.hub_layout import change_config

WORDS = "embeddings.word_embeddings.weight"


def write_stale_index(folder: Path) -> None:
    """Writes an index, and shards with other weights."""
    zeros = {name: torch.zeros_like(tensor) for name, tensor in write_bert(folder).state_dict().items()}
    save_file(zeros, folder / "model-00001-of-00001.safetensors")
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {}, "weight_map": dict.fromkeys(zeros, "model-00001-of-00001.safetensors")},
    )


def test_a_single_file_is_taken_before_a_stale_index_as_transformers_does(tmp_path: Path) -> None:
    write_stale_index(tmp_path)
    assert BertModel.from_pretrained(tmp_path).state_dict()[WORDS].any()
    assert find_weight_files(tmp_path) == [tmp_path / "model.safetensors"]
    (tmp_path / "model.safetensors").unlink()
    assert not BertModel.from_pretrained(tmp_path).state_dict()[WORDS].any()
    assert find_weight_files(tmp_path) == [tmp_path / "model-00001-of-00001.safetensors"]


@pytest.mark.parametrize("first", range(len(FILES)))
def test_files_are_searched_in_order(tmp_path: Path, first: int) -> None:
    for name in FILES[first:]:
        write_json(tmp_path / name, {"weight_map": {WORDS: f"shard of {name}"}})
        (tmp_path / f"shard of {name}").touch()
    expected = f"shard of {FILES[first]}" if FILES[first].endswith(".json") else FILES[first]
    assert find_weight_files(tmp_path) == [tmp_path / expected]


def test_file_named_in_the_config_takes_precedence_as_in_transformers(tmp_path: Path) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in write_bert(tmp_path).state_dict().items()}
    save_file(zeros, tmp_path / "other.safetensors")
    change_config(tmp_path, transformers_weights="other.safetensors")
    assert not BertModel.from_pretrained(tmp_path).state_dict()[WORDS].any()
    assert find_weight_files(tmp_path) == [tmp_path / "other.safetensors"]
    change_config(tmp_path, transformers_weights="gone.safetensors")
    with pytest.raises(CheckpointError, match=r"has no weights: no gone\.safetensors"):
        find_weight_files(tmp_path)


@pytest.mark.parametrize("header", ["[" * 10_000, '{"a": {"shape": [1], "data_offsets": [0]}}', '{"a": 7}'])
def test_broken_headers_are_refused_in_one_sentence(tmp_path: Path, header: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert explain_safetensors(path) is None
    if "shape" not in header:
        with pytest.raises(CheckpointError, match="is not a safetensors file"):
            read_shapes(path)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "pytorch_model.bin"])
def test_only_safetensors_of_the_folder_can_be_named(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "config.json", {"transformers_weights": name})
    with pytest.raises(CheckpointError, match="is not a safetensors file of the folder"):
        find_weight_files(tmp_path)


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("shard", ["gone.safetensors", "../model.safetensors", "/etc/passwd"])
def test_index_names_only_files_of_its_folder(tmp_path: Path, shard: str, index: str) -> None:
    write_json(tmp_path / index, {"weight_map": {WORDS: shard}})
    with pytest.raises(CheckpointError, match="not a file of the folder"):
        find_weight_files(tmp_path)


def test_shapes_are_those_of_the_tensors(tmp_path: Path) -> None:
    model = write_bert(tmp_path)
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert read_shapes(tmp_path / "model.safetensors") == expected


@pytest.mark.parametrize(
    "content", [b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x10" + b"\0" * 7 + b'{"a": {"b": 1}}  ']
)
def test_other_files_than_safetensors_are_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        read_shapes(tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", SUBSTITUTES)
def test_a_failed_download_is_recognised(tmp_path: Path, content: bytes) -> None:
    for path in (tmp_path / "model.safetensors", tmp_path / "config.json"):
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors {SUBSTITUTES[content]}"):
        read_shapes(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"config\.json {SUBSTITUTES[content]}"):
        read_json(tmp_path / "config.json")


def test_shapes_can_be_read_without_the_end_of_the_file_but_not_without_the_header(tmp_path: Path) -> None:
    write_bert(tmp_path)
    path = tmp_path / "model.safetensors"
    shapes, content = read_shapes(path), path.read_bytes()
    path.write_bytes(content[:-1])
    assert read_shapes(path) == shapes
    path.write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is cut off: it has 1000 of \d+ bytes"):
        read_shapes(path)
