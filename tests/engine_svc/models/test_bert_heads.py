"""Loading BERT's heads: what is tied, and what is said of weights that are missing or do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification, PreTrainedModel

from engine_svc.models.architectures import load_head
from engine_svc.models.heads.head import Head
from engine_svc.models.heads.splade import SpladeHead
from heddle.checkpoint import Checkpoint
from heddle.checkpoint_files import CheckpointError
from tests.checkpoints import write_bert, write_old_modules

WORDS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"


def write(folder: Path, model_class: type[PreTrainedModel], **config: Any) -> PreTrainedModel:
    if model_class is BertForMaskedLM:
        write_old_modules(folder, ["MLMTransformer", "SpladePooling"])
    return write_bert(folder, model_class, **config)


def head_of(folder: Path) -> Head:
    return load_head(Checkpoint.read(folder), dtype=torch.float32, device=torch.device("cpu"))


def without(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("model_class", "name"),
    [
        (BertForSequenceClassification, "bert.pooler.dense.weight"),
        (BertForSequenceClassification, "bert.pooler.dense.bias"),
        (BertForSequenceClassification, "classifier.weight"),
        (BertForTokenClassification, "classifier.weight"),
        (BertForTokenClassification, "classifier.bias"),
        (BertForMaskedLM, "cls.predictions.transform.dense.weight"),
        (BertForMaskedLM, "cls.predictions.transform.LayerNorm.bias"),
        (BertForMaskedLM, "cls.predictions.bias"),
    ],
)
def test_missing_tensor_is_named(tmp_path: Path, model_class: type[PreTrainedModel], name: str) -> None:
    write(tmp_path, model_class)
    head_of(tmp_path)
    without(tmp_path, name)
    with pytest.raises(CheckpointError, match=f"{tmp_path} has no tensor {name.removeprefix('bert.')} "):
        head_of(tmp_path)


@pytest.mark.parametrize("model_class", [BertForSequenceClassification, BertForTokenClassification])
def test_classifier_of_other_labels_than_the_config_has_is_refused(
    tmp_path: Path, model_class: type[PreTrainedModel]
) -> None:
    write(tmp_path, model_class, num_labels=4)
    config = json.loads((tmp_path / "config.json").read_text())
    labels = {str(index): f"label {index}" for index in range(3)}
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    with pytest.raises(CheckpointError, match=r"classifier.weight has shape \[4, 32\], expected \[3, 32\]"):
        head_of(tmp_path)


def decoded(folder: Path, hidden: Tensor) -> Tensor:
    head = head_of(folder)
    assert isinstance(head, SpladeHead)
    return head.decoder(hidden)


def test_decoder_is_the_word_embeddings_where_the_file_has_no_other(tmp_path: Path) -> None:
    model = write(tmp_path, BertForMaskedLM)
    tensors = load_file(tmp_path / "model.safetensors")
    assert DECODER not in tensors
    hidden = torch.randn(3, 32)
    expected = hidden @ model.state_dict()[WORDS].T + model.state_dict()["cls.predictions.bias"]
    torch.testing.assert_close(decoded(tmp_path, hidden), expected)


def test_decoder_of_its_own_is_used(tmp_path: Path) -> None:
    model = write(tmp_path, BertForMaskedLM, tie_word_embeddings=False)
    weights = model.state_dict()
    assert not torch.equal(weights[DECODER], weights[WORDS])
    hidden = torch.randn(3, 32)
    expected = hidden @ weights[DECODER].T + weights["cls.predictions.bias"]
    torch.testing.assert_close(decoded(tmp_path, hidden), expected)


def test_decoder_that_is_not_tied_must_be_there(tmp_path: Path) -> None:
    write(tmp_path, BertForMaskedLM, tie_word_embeddings=False)
    without(tmp_path, DECODER)
    with pytest.raises(CheckpointError, match=f"has no tensor {DECODER}"):
        head_of(tmp_path)
