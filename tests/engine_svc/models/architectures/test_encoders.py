"""BERT's relatives: errors for missing tensors, defaults of settings, and DeBERTa's attention in tiles of any size."""

from pathlib import Path

import pytest
import torch

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.activations import Activation
from engine_svc.models.architectures import deberta
from engine_svc.models.linear import PlainLinear
from engine_svc.models.transformer import FeedForward
from engine_svc.startup import count_token_types
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.engine_svc.models.cases import Case, load_model
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.hub_layout import change_config, rename_tensors
from tests.engine_svc.models.packed import random_batch
from tests.sequences import run_each


def find_case(architecture: str, name: str) -> Case:
    return next(case for case in CASES if (case.architecture, case.name) == (architecture, name))


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
    find_case(architecture, name).write(tmp_path)
    rename_tensors(tmp_path, lambda stored: None if stored == missing else stored)
    with pytest.raises(CheckpointError, match=f"{tmp_path} has no tensor {missing} "):
        load_model(tmp_path)


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
    find_case(architecture, name).write(tmp_path)
    change_config(tmp_path, without=("hidden_act",))
    feed_forward = load_model(tmp_path).transformer.layers[0].feed_forward
    assert isinstance(feed_forward, FeedForward)
    assert isinstance(feed_forward.up_proj, PlainLinear)
    assert feed_forward.up_proj.activation is activation


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
    find_case(architecture, name).write(tmp_path)
    change_config(tmp_path, without=("type_vocab_size",))
    types = load_model(tmp_path).transformer.embeddings.types
    assert count_token_types(Checkpoint.read(tmp_path).config) == (0 if types is None else len(types))


@pytest.mark.parametrize("numbers_max", [1, 4 * 64 * 5, 4 * 64 * 64 * 2])
def test_tiles_of_disentangled_attention_of_any_size_give_the_same(
    tmp_path: Path, numbers_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_case("deberta-v2", "as v3").write(tmp_path)
    backend = TorchBackend(Checkpoint.read(tmp_path), dtype="float32", device="cpu")
    batch = random_batch([3, 40, 40, 40, 64, 64])
    whole = run_each(backend, batch)
    monkeypatch.setattr(deberta, "TILE_NUMBERS_MAX", numbers_max)
    for ours, theirs in zip(run_each(backend, batch), whole, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), torch.from_numpy(theirs), atol=1e-5, rtol=0)
