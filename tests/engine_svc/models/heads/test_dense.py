"""Dense modules behind pooling, against sentence-transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from torch import nn

from engine_svc.backends.loading import check_loadable
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.checkpoint_files import CheckpointError
from tests.checkpoints import SMALL_BERT, write_bert, write_json, write_tokenizer
from tests.engine_svc.models.cases import one_by_one
from tests.engine_svc.models.packed import ALL_LENGTHS, random_batch


def written(folder: Path, dense: Sequence[Dense], modes: Sequence[str] = ("mean",)) -> SentenceTransformer:
    write_bert(folder / "bert")
    write_tokenizer(folder / "bert")
    pooling = Pooling(SMALL_BERT["hidden_size"], tuple(modes))
    modules = [Transformer(str(folder / "bert")), pooling, *dense, Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save(str(folder))
    return model


@pytest.mark.parametrize(
    ("dense", "modes"),
    [
        ([Dense(32, 20)], ["mean"]),
        ([Dense(32, 128, bias=False, activation_function=None), Dense(128, 24, bias=False)], ["cls"]),
        ([Dense(64, 16, activation_function=nn.GELU())], ["mean", "lasttoken"]),
    ],
    ids=["tanh", "two, as EmbeddingGemma's", "two poolings"],
)
def test_vectors_equal_sentence_transformers(tmp_path: Path, dense: list[Dense], modes: list[str]) -> None:
    model = written(tmp_path, dense, modes)
    checkpoint = Checkpoint.read(tmp_path)
    assert checkpoint.dimension == dense[-1].out_features
    batch = random_batch(ALL_LENGTHS)

    def reference(ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["sentence_embedding"][0]  # type: ignore[no-any-return]

    outputs = TorchBackend(checkpoint, dtype="float32", device="cpu").run(batch)
    for ours, theirs in zip(outputs, one_by_one(reference, batch), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"out_features": None}, r"2_Dense/config.json has no out_features"),
        ({"activation_function": "os.system"}, "has the activation os.system, which is not supported"),
        ({"use_residual": True}, "a Dense module with a residual"),
        ({"module_input_name": "sentence_embedding", "module_output_name": "other"}, "makes 'other' of"),
    ],
)
def test_settings_that_are_not_supported_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    written(tmp_path, [Dense(32, 20)])
    write_json(tmp_path / "2_Dense" / "config.json", {"in_features": 32, "out_features": 20, **settings})
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.read(tmp_path)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    written(tmp_path, [Dense(32, 20)])
    path = tmp_path / "2_Dense" / "model.safetensors"
    save_file({"linear.weight": load_file(path)["linear.weight"]}, path)
    with pytest.raises(CheckpointError, match=r"2_Dense has no tensor linear\.bias"):
        TorchBackend(Checkpoint.read(tmp_path), device="cpu")
    path.unlink()
    with pytest.raises(CheckpointError, match=r"2_Dense has no weights"):
        TorchBackend(Checkpoint.read(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("dense", "modes", "message"),
    [
        ([Dense(64, 20)], ["mean"], r"2_Dense/config\.json: in_features 64 is not the width 32"),
        ([Dense(32, 20)], ["mean", "cls"], r"2_Dense/config\.json: in_features 32 is not the width 64"),
        ([Dense(32, 20), Dense(32, 20)], ["mean"], r"3_Dense/config\.json: in_features 32 is not the width 20"),
    ],
)
def test_module_that_does_not_fit_what_it_is_given_is_named(
    tmp_path: Path, dense: list[Dense], modes: list[str], message: str
) -> None:
    written(tmp_path, dense, modes)
    with pytest.raises(CheckpointError, match=message):
        check_loadable(EngineSettings(), Checkpoint.read(tmp_path))
