"""Which tensors of a classifier or a language model an embedder may leave unused: those of its head alone."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from transformers import BertForMaskedLM, BertForTokenClassification, PreTrainedModel, Qwen3ForCausalLM

from engine_svc.models.model import Model
from heddle.checkpoint import Checkpoint
from heddle.checkpoint_files import CheckpointError
from tests.checkpoints import write_bert, write_old_modules
from tests.engine_svc.models.cases import saved
from tests.engine_svc.models.cases_of.decoders import bare_names, small
from tests.engine_svc.models.hub_layout import rename_tensors


def write_qwen(folder: Path) -> None:
    saved(small(Qwen3ForCausalLM, num_hidden_layers=3), folder)
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


Write = Callable[[Path], None]


def load_with(folder: Path, write: Write, add: Mapping[str, torch.Tensor]) -> Model:
    write(folder)
    rename_tensors(folder, str, add=add)
    return Model.load(Checkpoint.read(folder), dtype=torch.float32, device=torch.device("meta"))


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_qwen, "model.layers.0.self_attn.q_proj.lora_A.weight"),
        (write_qwen, "model.layers.2.self_attn.q_proj.bias"),
        (write_qwen, "model.layers.7.mlp.up_proj.weight"),
        (write_bare_qwen, "layers.0.self_attn.q_proj.lora_A.weight"),
        (write_bare_qwen, "layers.2.self_attn.k_proj.bias"),
        (write_bare_qwen, "layers.7.mlp.up_proj.weight"),
        (write_bare_qwen, "norm.bias"),
        (write_bert_as_embedder, "bert.encoder.layer.0.attention.self.query.lora_A.weight"),
        (write_bert_as_embedder, "bert.encoder.layer.9.output.dense.weight"),
        (write_bert_as_embedder, "bert.embeddings.projection.weight"),
        (write_bare_bert, "encoder.layer.0.attention.self.query.lora_A.weight"),
        (write_bare_bert, "encoder.layer.9.output.dense.weight"),
    ],
)
def test_tensor_inside_the_transformer_that_has_no_place_is_named(tmp_path: Path, write: Write, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"model.safetensors has the tensor {name}, which .* no place"):
        load_with(tmp_path, write, {name: torch.ones(2, 3)})


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_qwen, "score.weight"),
        (write_bare_qwen, "score.weight"),
        (write_bare_qwen, "layers.0.self_attn.rotary_emb.inv_freq"),
        (write_bert_as_embedder, "classifier.dense.weight"),
        (write_bert_as_embedder, "bert.pooler.dense.weight"),
        (write_bare_bert, "qa_outputs.bias"),
        (write_bare_bert, "pooler.dense.bias"),
    ],
)
def test_tensor_of_a_foreign_head_is_passed_over(tmp_path: Path, write: Write, name: str) -> None:
    load_with(tmp_path, write, {name: torch.ones(2, 3)})
