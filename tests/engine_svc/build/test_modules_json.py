"""Builds store their pooling and score settings, and are served the same way under any name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import BertForMaskedLM, BertModel, Qwen3Config, Qwen3ForCausalLM

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.language_models import find_known_reranker
from heddle.checkpoint.sentence_modules import LogitScore, Pooling
from tests.checkpoints import write_bert, write_json, write_old_modules, write_tokenizer
from tests.engine_svc.build.building import build
from tests.engine_svc.models.cases_of.decoders import SMALL

MODE = {"word_embedding_dimension": 32}


def write_source(folder: Path, model_class: Any = BertModel) -> Path:
    write_tokenizer(folder)
    write_bert(folder, model_class)
    return folder


def write_language_model(folder: Path) -> Path:
    torch.manual_seed(0)
    write_tokenizer(folder)
    Qwen3ForCausalLM(Qwen3Config(**SMALL)).save_pretrained(folder)
    return folder


def kinds_of(folder: Path) -> list[str]:
    return [entry["type"].rpartition(".")[2] for entry in json.loads((folder / "modules.json").read_text())]


@pytest.mark.parametrize("pooling", ["cls", "max", "last_token", "weighted_mean"])
def test_pooling_settings_are_stored(tmp_path: Path, pooling: Any) -> None:
    root = write_source(tmp_path / "source")
    write_old_modules(root, ["Transformer", "Pooling", "Normalize"], {**MODE, "pooling_mode_mean_tokens": True})
    artifact = Checkpoint.read(build(root, tmp_path / "built", pooling=pooling))
    assert artifact.pooling == (Pooling(pooling),)
    assert artifact.normalizes
    assert kinds_of(tmp_path / "built") == ["Transformer", "Pooling", "Normalize"]


def test_unchanged_pooling_keeps_its_files(tmp_path: Path) -> None:
    root = write_source(tmp_path / "source")
    write_old_modules(root, ["Transformer", "Pooling"], {**MODE, "pooling_mode_cls_token": True})
    artifact = build(root, tmp_path / "built", pooling="cls")
    for name in ("modules.json", "1_Pooling/config.json"):
        assert (artifact / name).read_bytes() == (root / name).read_bytes()


def test_sentence_transformers_reads_stored_pooling(tmp_path: Path) -> None:
    artifact = build(write_source(tmp_path / "source"), tmp_path / "built", pooling="cls")
    model = SentenceTransformer(str(artifact), device="cpu")
    hidden = model.encode("w1 w2 w3", output_value="token_embeddings")
    assert torch.allclose(model.encode("w1 w2 w3", convert_to_tensor=True), hidden[0], atol=1e-6)


def test_splade_settings_are_stored(tmp_path: Path) -> None:
    root = write_source(tmp_path / "source", BertForMaskedLM)
    artifact = Checkpoint.read(build(root, tmp_path / "built", pooling="splade"))
    assert artifact.kind is ModelKind.SPARSE_EMBEDDER
    assert kinds_of(tmp_path / "built") == ["Transformer", "SpladePooling"]


def test_score_tokens_are_stored(tmp_path: Path) -> None:
    root = write_language_model(tmp_path / "source")
    artifact = Checkpoint.read(build(root, tmp_path / "built", score_tokens="w3,w4"))
    assert artifact.kind is ModelKind.RERANKER
    vocabulary = (root / "tokenizer.json").read_text()
    ids = json.loads(vocabulary)["model"]["vocab"]
    assert artifact.logit_score == LogitScore(ids["w3"], ids["w4"])


def test_a_reranker_recognised_by_name_is_recognised_under_another(tmp_path: Path) -> None:
    root = write_language_model(tmp_path / "source")
    path = root / "tokenizer.json"
    path.write_text(path.read_text().replace('"w1"', '"yes"').replace('"w2"', '"no"'))
    artifact = Checkpoint.read(build(root, tmp_path / "built", name="Qwen/Qwen3-Reranker-0.6B"))
    assert artifact.kind is ModelKind.RERANKER
    known = find_known_reranker(artifact.config, artifact.config["_name_or_path"])
    assert known is not None
    assert known.name == "qwen3-reranker"
    embedder = Checkpoint.read(build(root, tmp_path / "other", name="Qwen/Qwen3-Embedding-0.6B"))
    assert embedder.kind is ModelKind.EMBEDDER
    assert embedder.pooling == (Pooling.LAST_TOKEN,)


def test_the_folder_of_the_transformer_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "source"
    write_source(root / "0_Transformer")
    listing = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    write_json(root / "modules.json", listing)
    write_json(root / "1_Pooling" / "config.json", {**MODE, "pooling_mode_mean_tokens": True})
    artifact = Checkpoint.read(build(root, tmp_path / "built", pooling="cls"))
    assert artifact.folder == tmp_path / "built" / "0_Transformer"
    assert (artifact.folder / "model.safetensors").is_file()
    assert artifact.pooling == (Pooling.CLS,)


def test_names_of_other_weight_files_are_removed(tmp_path: Path) -> None:
    root = write_source(tmp_path / "source")
    (root / "model.safetensors").rename(root / "other.safetensors")
    config = json.loads((root / "config.json").read_text())
    write_json(root / "config.json", {**config, "transformers_weights": "other.safetensors"})
    artifact = build(root, tmp_path / "built")
    assert "transformers_weights" not in json.loads((artifact / "config.json").read_text())
    assert not (artifact / "other.safetensors").exists()
