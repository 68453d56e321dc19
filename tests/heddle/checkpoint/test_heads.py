"""The labels of a classifier whose config.json does not list them: as many as its last linear has rows."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, BertForTokenClassification, PreTrainedModel

from engine_svc.backends.torch_backend import TorchBackend
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.heads import needs_weights_for_labels
from tests.checkpoints import write_bert, write_json
from tests.engine_svc.models.hub_layout import change_config
from tests.heddle.checkpoint.bert_folder import with_config

SEQUENCES = ["BertForSequenceClassification"]


def write_silent(folder: Path, labels: int, model_class: type[PreTrainedModel] = BertForSequenceClassification) -> None:
    """A classifier whose config does not state its labels."""
    write_bert(folder, model_class, num_labels=labels)
    change_config(folder, without=("id2label", "label2id", "num_labels"))


@pytest.mark.parametrize(
    ("labels", "kind"), [(1, ModelKind.RERANKER), (2, ModelKind.CLASSIFIER), (5, ModelKind.CLASSIFIER)]
)
def test_rows_of_the_head_determine_labels_and_kind(tmp_path: Path, labels: int, kind: ModelKind) -> None:
    write_silent(tmp_path, labels)
    checkpoint = Checkpoint.read(tmp_path)
    assert (checkpoint.kind, checkpoint.labels) == (kind, tuple(f"LABEL_{index}" for index in range(labels)))
    TorchBackend(checkpoint, dtype="float32", device="cpu")


def test_token_classifier_has_the_rows_of_its_head(tmp_path: Path) -> None:
    write_silent(tmp_path, 9, BertForTokenClassification)
    assert len(Checkpoint.read(tmp_path).labels) == 9


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("name", ["classifier.weight", "classifier.out_proj.weight", "score.weight"])
def test_head_is_found_in_shards_under_every_name(tmp_path: Path, name: str, wrapper: str) -> None:
    with_config(tmp_path, architectures=SEQUENCES)
    words, weight = f"{wrapper}embeddings.words.weight", wrapper + name
    save_file({words: torch.ones(9, 4)}, tmp_path / "a.safetensors")
    save_file({weight: torch.ones(3, 4), f"{wrapper}classifier.bias": torch.ones(3)}, tmp_path / "b.safetensors")
    shards = {words: "a.safetensors", weight: "b.safetensors"}
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": shards})
    assert len(Checkpoint.read(tmp_path).labels) == 3


def test_labels_of_the_config_take_precedence(tmp_path: Path) -> None:
    write_silent(tmp_path, 5)
    change_config(tmp_path, num_labels=3)
    assert len(Checkpoint.read(tmp_path).labels) == 3


def test_two_labels_are_assumed_if_the_weights_do_not_show_the_number(tmp_path: Path) -> None:
    write_silent(tmp_path, 5)
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), "score.weight": torch.ones(7, 32)}, path)
    assert len(Checkpoint.read(tmp_path).labels) == 2
    torch.save(load_file(path), tmp_path / "pytorch_model.bin")
    path.unlink()
    assert len(Checkpoint.read(tmp_path).labels) == 2
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"score.weight": "gone"}})
    assert len(Checkpoint.read(tmp_path).labels) == 2
    path.write_bytes(b"broken")
    assert len(Checkpoint.read(tmp_path).labels) == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"architectures": SEQUENCES}, True),
        ({"architectures": ["RobertaForTokenClassification"]}, True),
        ({"architectures": SEQUENCES, "num_labels": 1}, False),
        ({"architectures": SEQUENCES, "id2label": {"0": "score"}}, False),
        ({"architectures": ["BertModel"]}, False),
    ],
)
def test_only_a_classifier_without_labels_in_its_config_needs_weights(
    folder: Path, changes: dict[str, object], *, expected: bool
) -> None:
    assert needs_weights_for_labels(with_config(folder, **changes)) is expected


def test_pods_refuse_each_other_if_only_one_can_count_labels(tmp_path: Path) -> None:
    write_silent(tmp_path, 3)
    whole = Checkpoint.read(tmp_path).tokenizer_fingerprint
    (tmp_path / "model.safetensors").unlink()
    assert Checkpoint.read(tmp_path).tokenizer_fingerprint != whole
