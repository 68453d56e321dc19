"""Tensors that a model does not use, which are ignored and logged once, tensors that it needs, and tied tensors."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    PreTrainedModel,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from engine_svc.backends.loading import check_loadable
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.model import Model
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import SMALL_BERT, write_bert, write_old_modules
from tests.engine_svc.models.cases import load_model, make_reference, run_each_alone, save
from tests.engine_svc.models.cases_of.decoders import bare_names, small
from tests.engine_svc.models.hub_layout import change_config, rename_tensors
from tests.engine_svc.models.packed import ALL_LENGTHS, random_batch
from tests.sequences import run_each


def write_qwen(folder: Path) -> None:
    save(small(Qwen3ForCausalLM, num_hidden_layers=3), folder)
    write_old_modules(folder, ["Transformer", "Pooling"], {"pooling_mode_lasttoken": True})


def write_bare_qwen(folder: Path) -> None:
    write_qwen(folder)
    bare_names(folder)


def write_bert_as_embedder(folder: Path, model_class: type[PreTrainedModel] = BertForMaskedLM) -> None:
    write_bert(folder, model_class)
    write_old_modules(folder, ["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True})


def write_bare_bert(folder: Path) -> None:
    write_bert_as_embedder(folder, BertForTokenClassification)
    rename_tensors(folder, lambda name: name.removeprefix("bert."))


Write = Callable[[Path], object]


def load_with(folder: Path, write: Write, add: Mapping[str, torch.Tensor]) -> Model:
    write(folder)
    rename_tensors(folder, str, add=add)
    return Model.load(Checkpoint.read(folder), dtype=torch.float32, device=torch.device("meta"))


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_bert, "foo.weight"),
        (write_qwen, "model.layers.0.self_attn.q_proj.lora_A.weight"),
        (write_qwen, "model.layers.2.self_attn.q_proj.bias"),
        (write_qwen, "score.weight"),
        (write_bare_qwen, "layers.7.mlp.up_proj.weight"),
        (write_bare_qwen, "norm.bias"),
        (write_bert_as_embedder, "bert.encoder.layer.9.output.dense.weight"),
        (write_bert_as_embedder, "bert.embeddings.projection.weight"),
        (write_bare_bert, "qa_outputs.bias"),
    ],
)
def test_unused_tensor_is_ignored_and_listed(tmp_path: Path, write: Write, name: str) -> None:
    assert name in load_with(tmp_path, write, {name: torch.ones(2, 3)}).unused


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_bare_qwen, "layers.0.self_attn.rotary_emb.inv_freq"),
        (write_qwen, "lm_head.weight"),
        (write_bert_as_embedder, "bert.pooler.dense.weight"),
        (write_bare_bert, "pooler.dense.bias"),
    ],
)
def test_unused_tensor_of_a_head_is_not_listed_for_embedders(tmp_path: Path, write: Write, name: str) -> None:
    assert name not in load_with(tmp_path, write, {name: torch.ones(2, 3)}).unused


def test_unused_tensors_do_not_change_the_vectors(tmp_path: Path) -> None:
    """transformers also ignores unknown tensors, and layers beyond those of the config."""
    write_bert(tmp_path)
    rename_tensors(tmp_path, str, add={"foo.weight": torch.ones(2, 3)})
    change_config(tmp_path, num_hidden_layers=1)
    model = BertModel.from_pretrained(tmp_path)
    batch = random_batch(ALL_LENGTHS)
    theirs = run_each_alone(make_reference(model, Checkpoint.read(tmp_path).kind), batch)
    for ours, hidden in zip(
        run_each(TorchBackend(Checkpoint.read(tmp_path), dtype="float32"), batch), theirs, strict=True
    ):
        expected = torch.nn.functional.normalize(torch.from_numpy(hidden.mean(0)), dim=0)
        torch.testing.assert_close(torch.from_numpy(ours), expected, atol=1e-5, rtol=1e-4)


def test_unused_tensors_are_logged_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_bert(tmp_path)
    rename_tensors(tmp_path, str, add={f"foo.{index}": torch.ones(2) for index in range(20)})
    with caplog.at_level(logging.WARNING):
        check_loadable(EngineSettings(), Checkpoint.read(tmp_path))
    (line,) = (record.getMessage() for record in caplog.records)
    assert "BertModel does not use the tensors foo.0, foo.1, foo.10" in line
    assert "and 12 more" in line


def test_missing_tensor_is_refused_whatever_else_is_there(tmp_path: Path) -> None:
    write_bert(tmp_path)
    rename_tensors(tmp_path, lambda name: name.replace("layer.1.output.dense", "foo"))
    with pytest.raises(CheckpointError, match=r"has no tensor encoder\.layer\.1\.output\.dense\.weight"):
        check_loadable(EngineSettings(), Checkpoint.read(tmp_path))


DISTILBERT = DistilBertConfig(vocab_size=97, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64)
TIED_MODELS: list[tuple[PreTrainedModel, str]] = [
    (small(Qwen3ForCausalLM, tie_word_embeddings=True), "lm_head.weight"),
    (BertForMaskedLM(BertConfig(**SMALL_BERT)), "cls.predictions.decoder.weight"),
    (RobertaForMaskedLM(RobertaConfig(**SMALL_BERT)), "lm_head.decoder.weight"),
    (DistilBertForMaskedLM(DISTILBERT), "vocab_projector.weight"),
    (AlbertForMaskedLM(AlbertConfig(**SMALL_BERT, embedding_size=16)), "predictions.decoder.weight"),
    (ElectraForMaskedLM(ElectraConfig(**SMALL_BERT, embedding_size=16)), "generator_lm_head.weight"),
]


@pytest.mark.parametrize(("model", "head"), TIED_MODELS, ids=lambda value: type(value).__name__)
def test_embeddings_may_be_stored_as_the_head(tmp_path: Path, model: PreTrainedModel, head: str) -> None:
    """safetensors stores tied tensors once, and may keep either name."""
    save(model, tmp_path)
    words = next(
        name for name, _ in model.named_parameters() if name.endswith(("embed_tokens.weight", "word_embeddings.weight"))
    )
    rename_tensors(tmp_path, lambda name: head if name == words else name)
    theirs = type(model).from_pretrained(tmp_path).state_dict()[words]
    assert torch.equal(theirs, model.state_dict()[words])
    assert torch.equal(load_model(tmp_path).transformer.embeddings.words, theirs)
    change_config(tmp_path, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=f"has no tensor {words.partition('.')[2]}"):
        load_model(tmp_path)
