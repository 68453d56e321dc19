"""BERT's weights: what is found where, what is tied, and the errors for missing tensors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedModel,
)

from engine_svc.models.heads.splade import SpladeHead
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import write_bert, write_old_modules
from tests.engine_svc.models.cases import load_model
from tests.engine_svc.models.hub_layout import change_config, rename_tensors

WORDS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"


def drop_tensor(folder: Path, name: str) -> None:
    rename_tensors(folder, lambda stored: None if stored == name else stored)


def write(folder: Path, model_class: type[PreTrainedModel], **config: Any) -> PreTrainedModel:
    if model_class is BertForMaskedLM:
        write_old_modules(folder, ["MLMTransformer", "SpladePooling"])
    return write_bert(folder, model_class, **config)


@pytest.mark.parametrize("name", ["embeddings.position_ids", "bert.pooler.dense.weight", "cls.predictions.bias"])
def test_unused_tensor_without_effect_is_not_listed(tmp_path: Path, name: str) -> None:
    write_bert(tmp_path)
    rename_tensors(tmp_path, str, add={name: torch.ones(3)})
    assert not load_model(tmp_path).unused


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
    load_model(tmp_path)
    drop_tensor(tmp_path, name)
    with pytest.raises(CheckpointError, match=f"{tmp_path} has no tensor {name.removeprefix('bert.')} "):
        load_model(tmp_path)


@pytest.mark.parametrize("model_class", [BertForSequenceClassification, BertForTokenClassification])
def test_classifier_with_other_labels_than_the_config_is_refused(
    tmp_path: Path, model_class: type[PreTrainedModel]
) -> None:
    write(tmp_path, model_class, num_labels=4)
    change_config(tmp_path, id2label={str(index): f"label {index}" for index in range(3)})
    with pytest.raises(CheckpointError, match=r"classifier.weight has shape \[4, 32\], expected \[3, 32\]"):
        load_model(tmp_path)


def decoded(folder: Path, hidden: Tensor) -> Tensor:
    head = load_model(folder).head
    assert isinstance(head, SpladeHead)
    return head.decoder(hidden)


def test_decoder_is_the_word_embeddings_where_the_file_has_no_other(tmp_path: Path) -> None:
    model = write(tmp_path, BertForMaskedLM)
    assert DECODER not in load_file(tmp_path / "model.safetensors")
    hidden = torch.randn(3, 32)
    expected = hidden @ model.state_dict()[WORDS].T + model.state_dict()["cls.predictions.bias"]
    torch.testing.assert_close(decoded(tmp_path, hidden), expected)


def test_decoder_of_its_own_is_used(tmp_path: Path) -> None:
    model = write(tmp_path, BertForMaskedLM, tie_word_embeddings=False)
    weights = model.state_dict()
    assert not torch.equal(weights[DECODER], weights[WORDS])
    hidden = torch.randn(3, 32)
    expected = hidden @ weights[DECODER].T + weights["cls.predictions.decoder.bias"]
    torch.testing.assert_close(decoded(tmp_path, hidden), expected)


def test_decoder_that_is_not_tied_must_be_there(tmp_path: Path) -> None:
    write(tmp_path, BertForMaskedLM, tie_word_embeddings=False)
    drop_tensor(tmp_path, DECODER)
    with pytest.raises(CheckpointError, match=f"has no tensor {DECODER}"):
        load_model(tmp_path)
