"""BERT's kin: what is said of a checkpoint that does not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine_svc.models.activations import Activation
from engine_svc.models.linear import PlainLinear
from engine_svc.models.model import Model
from engine_svc.models.transformer import FeedForward
from engine_svc.startup import count_token_types
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.cases_of.encoders import change_config


def case_of(architecture: str, name: str) -> Case:
    return next(case for case in CASES if (case.architecture, case.name) == (architecture, name))


def load(folder: Path) -> Model:
    return Model.load(Checkpoint.read(folder), dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("architecture", "name", "missing"),
    [
        ("xlm-roberta", "one label", "classifier.dense.weight"),
        ("xlm-roberta", "one label", "classifier.out_proj.bias"),
        ("xlm-roberta", "nine labels", "classifier.weight"),
        ("roberta", "tied", "lm_head.layer_norm.weight"),
        ("roberta", "tied", "lm_head.bias"),
        ("distilbert", "one label", "pre_classifier.weight"),
        ("distilbert", "tied", "vocab_transform.weight"),
        ("distilbert", "tied", "vocab_projector.bias"),
        ("mpnet", "as of old", "encoder.relative_attention_bias.weight"),
        ("mpnet", "one label", "classifier.dense.weight"),
        ("electra", "narrow embeddings, as of small ones", "embeddings_project.weight"),
        ("electra", "one label", "classifier.out_proj.weight"),
        ("albert", "one layer for all", "encoder.embedding_hidden_mapping_in.bias"),
        ("albert", "one label", "classifier.weight"),
        ("deberta-v2", "as v3", "encoder.rel_embeddings.weight"),
        ("deberta-v2", "one label", "pooler.dense.bias"),
        ("jina-bert", "reglu", "encoder.layer.1.mlp.gated_layers.weight"),
        ("jina-bert", "as jina-embeddings-v2-base-code", "encoder.layer.1.attention.self.layer_norm_k.bias"),
    ],
)
def test_missing_tensor_is_named(tmp_path: Path, architecture: str, name: str, missing: str) -> None:
    case_of(architecture, name).write(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors[missing]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=f"{tmp_path} has no tensor {missing} "):
        load(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "name", "changes", "message"),
    [
        ("roberta", "as transformers 5 saves it", {"position_embedding_type": "rotary"}, "rotary is not supported"),
        ("roberta", "as transformers 5 saves it", {"hidden_act": "mish"}, "hidden_act mish is not supported"),
        ("distilbert", "relu", {"activation": "mish"}, "activation mish is not supported"),
        ("distilbert", "relu", {"n_heads": 5}, "hidden size 32 is not a multiple"),
        ("mpnet", "as of old", {"relative_attention_num_buckets": 64}, "num_buckets 64 is not supported"),
        ("deberta-v2", "as v3", {"conv_kernel_size": 3}, "conv_kernel_size 3 is not supported"),
        ("deberta-v2", "as v3", {"relative_attention": False}, "relative_attention False is not supported"),
        ("deberta-v2", "as v3", {"relative_attention": None}, "relative_attention False is not supported"),
        ("jina-bert", "reglu", {"feed_forward_type": "swiglu"}, "feed_forward_type swiglu is not supported"),
        ("jina-bert", "the later one, reglu", {"feed_forward_type": "original"}, "type original is not supported"),
        ("electra", "narrow embeddings, as of small ones", {"embedding_size": 24}, r"\[64, 16\], expected \[64, 24\]"),
    ],
)
def test_config_that_does_not_fit_is_one_sentence(
    tmp_path: Path, architecture: str, name: str, changes: dict[str, Any], message: str
) -> None:
    case_of(architecture, name).write(tmp_path)
    change_config(tmp_path, changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "name", "activation"),
    [
        ("albert", "one layer for all", Activation.GELU_TANH),
        ("bert", "relu", Activation.GELU),
    ],
)
def test_activation_that_is_not_stated_is_the_architecture_s(
    tmp_path: Path, architecture: str, name: str, activation: Activation
) -> None:
    case_of(architecture, name).write(tmp_path)
    change_config(tmp_path, {"hidden_act": None})
    feed_forward = load(tmp_path).transformer.layers[0].feed_forward
    assert isinstance(feed_forward, FeedForward)
    assert isinstance(feed_forward.up, PlainLinear)
    assert feed_forward.up.activation is activation


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("bert", "gelu"),
        ("albert", "one layer for all"),
        ("electra", "narrow embeddings, as of small ones"),
        ("roberta", "two token types"),
        ("distilbert", "relu"),
        ("mpnet", "as of old"),
        ("deberta-v2", "as v3"),
    ],
)
def test_type_ids_that_the_config_does_not_mention_are_used_if_they_are_loaded(
    tmp_path: Path, architecture: str, name: str
) -> None:
    case_of(architecture, name).write(tmp_path)
    change_config(tmp_path, {"type_vocab_size": None})
    types = load(tmp_path).transformer.embeddings.types
    assert count_token_types(Checkpoint.read(tmp_path).config) == (0 if types is None else len(types))
