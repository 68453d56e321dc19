"""BERT's config and weights: what is found where, what is tied, and what is said of a checkpoint that does not fit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedModel,
)

from engine_svc.models.heads.splade import SpladeHead
from engine_svc.models.model import Model
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import write_bert, write_old_modules

WORDS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"


def write(folder: Path, model_class: type[PreTrainedModel], **config: Any) -> PreTrainedModel:
    if model_class is BertForMaskedLM:
        write_old_modules(folder, ["MLMTransformer", "SpladePooling"])
    return write_bert(folder, model_class, **config)


def model_of(folder: Path) -> Model:
    return Model.load(Checkpoint.read(folder), dtype=torch.float32, device=torch.device("cpu"))


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def change_weights(folder: Path, *, without: str = "", add: Mapping[str, Tensor] | None = None) -> None:
    tensors = {**load_file(folder / "model.safetensors"), **(add or {})}
    tensors.pop(without, None)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model type mamba is not supported"),
        ({"hidden_act": "mish"}, "hidden_act mish is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type relative_key is not supported"),
        ({"is_decoder": True}, "is_decoder True is not supported"),
        ({"num_attention_heads": 5}, "hidden size 32 is not a multiple"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing, or not a positive number"),
        ({"num_hidden_layers": 3}, "no tensor encoder.layer.2"),
        ({"intermediate_size": 50}, r"has shape \[48, 32\], expected \[50, 32\]"),
        ({"vocab_size": 98}, r"word_embeddings.weight has shape \[97, 32\], expected \[98, 32\]"),
        ({"quantization_config": {"bits": 4}}, "quantized weights"),
    ],
)
def test_config_that_does_not_fit_is_one_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_bert(tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        model_of(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["embeddings.position_ids", "bert.pooler.dense.weight", "cls.predictions.bias"])
def test_unused_tensor_without_effect_is_not_listed(tmp_path: Path, name: str) -> None:
    write_bert(tmp_path)
    change_weights(tmp_path, add={name: torch.ones(3)})
    assert not model_of(tmp_path).unused


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
    model_of(tmp_path)
    change_weights(tmp_path, without=name)
    with pytest.raises(CheckpointError, match=f"{tmp_path} has no tensor {name.removeprefix('bert.')} "):
        model_of(tmp_path)


@pytest.mark.parametrize("model_class", [BertForSequenceClassification, BertForTokenClassification])
def test_classifier_of_other_labels_than_the_config_has_is_refused(
    tmp_path: Path, model_class: type[PreTrainedModel]
) -> None:
    write(tmp_path, model_class, num_labels=4)
    change_config(tmp_path, id2label={str(index): f"label {index}" for index in range(3)})
    with pytest.raises(CheckpointError, match=r"classifier.weight has shape \[4, 32\], expected \[3, 32\]"):
        model_of(tmp_path)


def decoded(folder: Path, hidden: Tensor) -> Tensor:
    head = model_of(folder).head
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
    change_weights(tmp_path, without=DECODER)
    with pytest.raises(CheckpointError, match=f"has no tensor {DECODER}"):
        model_of(tmp_path)
