"""Dense, LayerNorm and Normalize in every order, against sentence-transformers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Normalize, Pooling, Transformer
from sentence_transformers.util import fullname
from torch import nn

from engine_svc.backends.loading import check_loadable
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.heads.vector_modules import apply_stages, load_vector_modules
from engine_svc.models.weights import Weights
from engine_svc.sequences import Output
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.vector_modules import ELEMENTWISE, ROWWISE
from tests.checkpoints import SMALL_BERT, write_bert, write_json, write_tokenizer
from tests.engine_svc.models.cases import run_each_alone
from tests.engine_svc.models.packed import ALL_LENGTHS, random_batch
from tests.sequences import packed, run_each, sequences_of

HIDDEN = SMALL_BERT["hidden_size"]
TOKENS = "token_embeddings"


def write_modules(folder: Path, modules: Sequence[nn.Module]) -> SentenceTransformer:
    """Writes a model with these modules after the transformer, with random weights."""
    write_bert(folder / "bert")
    write_tokenizer(folder / "bert")
    model = SentenceTransformer(modules=[Transformer(str(folder / "bert")), *modules], device="cpu")
    for module in modules:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.5)
    model.save(str(folder))
    return model.train(mode=False)


def write_modules_folder(
    folder: Path, dense: Sequence[nn.Module], modes: Sequence[str] = ("mean",)
) -> SentenceTransformer:
    return write_modules(folder, [Pooling(HIDDEN, tuple(modes)), *dense, Normalize()])


def assert_served_as(folder: Path, model: SentenceTransformer, *, normalizes: bool) -> None:
    batch = random_batch(ALL_LENGTHS)
    batch = packed([replace(sequence, skip_normalization=not normalizes) for sequence in sequences_of(batch)])

    def reference(ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["sentence_embedding"][0]  # type: ignore[no-any-return]

    outputs = run_each(TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu"), batch)
    for ours, theirs in zip(outputs, run_each_alone(reference, batch), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-4)


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
    model = write_modules_folder(tmp_path, dense, modes)
    assert Checkpoint.read(tmp_path).dimension == dense[-1].out_features
    assert_served_as(tmp_path, model, normalizes=True)


POOLED = Pooling(HIDDEN, "mean")
ORDERS: dict[str, list[nn.Module]] = {
    "layer norm": [POOLED, LayerNorm(32)],
    "normalize before dense": [POOLED, Normalize(), Dense(32, 20)],
    "layer norm between dense, and dropout": [POOLED, Dropout(), Dense(32, 20), LayerNorm(20), Dense(20, 8)],
    "normalize before layer norm": [POOLED, Normalize(), LayerNorm(32), Dropout()],
    "residual": [POOLED, Dense(32, 32, use_residual=True)],
    "residual of another width": [POOLED, Dense(32, 20, use_residual=True, activation_function=nn.ReLU())],
    "of tokens, then pooled": [Dense(32, 24, module_input_name=TOKENS), Pooling(24, "mean"), Dense(24, 8)],
    "tokens normalised": [Normalize(module_input_name=TOKENS), Pooling(32, ("cls", "max"))],
}


@pytest.mark.parametrize("normalizes", [False, True], ids=["", "then normalize"])
@pytest.mark.parametrize("order", ORDERS)
def test_modules_run_in_the_order_of_sentence_transformers(tmp_path: Path, order: str, *, normalizes: bool) -> None:
    model = write_modules(tmp_path, [*ORDERS[order], *([Normalize()] if normalizes else [])])
    checkpoint = Checkpoint.read(tmp_path)
    assert checkpoint.dimension == model.get_embedding_dimension()
    assert checkpoint.normalizes == normalizes
    assert_served_as(tmp_path, model, normalizes=normalizes)


@pytest.mark.filterwarnings("ignore:Implicit dimension")  # sentence-transformers makes Softmax without a dim
def test_activations_are_those_of_torch(tmp_path: Path) -> None:
    dense = Dense(32, 20)
    write_modules(tmp_path, [POOLED, dense])
    place = tmp_path / "2_Dense" / "config.json"
    settings = json.loads(place.read_text())
    rows = torch.randn(5, 32)
    for name in ELEMENTWISE | ROWWISE:
        dense.activation_function = getattr(nn, name)()
        write_json(place, {**settings, "activation_function": fullname(dense.activation_function)})
        checkpoint = Checkpoint.read(tmp_path)
        weights = Weights(checkpoint.folder, dtype=torch.float32, device=torch.device("cpu"))
        ours = apply_stages(load_vector_modules(checkpoint.vector_modules, weights, 32), rows)
        torch.testing.assert_close(ours, dense({"sentence_embedding": rows})["sentence_embedding"], msg=name)


def test_every_activation_of_torch_is_known_or_has_a_reason_not_to_be() -> None:
    with_weights_or_arguments_or_chance = {"GLU", "MultiheadAttention", "PReLU", "RReLU", "Softmax2d", "Threshold"}
    stated = set(nn.modules.activation.__all__)
    assert stated - ELEMENTWISE - ROWWISE == with_weights_or_arguments_or_chance


def test_token_vectors_are_those_that_are_pooled(tmp_path: Path) -> None:
    write_modules(tmp_path, ORDERS["of tokens, then pooled"])
    checkpoint = Checkpoint.read(tmp_path)
    assert checkpoint.token_dimension == 24
    batch = random_batch((3, 5), output=Output.TOKEN_VECTORS)
    outputs = run_each(TorchBackend(checkpoint, dtype="float32", device="cpu"), batch)
    assert [output.shape for output in outputs] == [(3, 24), (5, 24)]


def test_pickled_weights_of_a_module_are_read(tmp_path: Path) -> None:
    """Older versions of sentence-transformers wrote such files."""
    model = write_modules_folder(tmp_path, [Dense(32, 20), LayerNorm(20)])
    for path in (*tmp_path.glob("*_Dense/*.safetensors"), *tmp_path.glob("*_LayerNorm/*.safetensors")):
        torch.save(load_file(path), path.parent / "pytorch_model.bin")
        path.unlink()
    assert_served_as(tmp_path, model, normalizes=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"out_features": None}, r"2_Dense/config.json has no out_features"),
        ({"activation_function": "os.system"}, "has the activation os.system, which is not supported"),
        ({"activation_function": "torch.nn.modules.activation.PReLU"}, "has the activation torch.*PReLU, which is"),
        ({"activation_function": "torch.nn.functional.softmax"}, "has the activation torch.*softmax, which is"),
        ({"use_residual": "yes"}, "use_residual 'yes' is not true or false"),
        ({"module_input_name": "sentence_embedding", "module_output_name": "other"}, "into 'other'"),
    ],
)
def test_settings_that_are_not_supported_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    write_modules_folder(tmp_path, [Dense(32, 20)])
    write_json(tmp_path / "2_Dense" / "config.json", {"in_features": 32, "out_features": 20, **settings})
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.read(tmp_path)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    write_modules_folder(tmp_path, [Dense(32, 20)])
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
        (
            [Dense(64, 20)],
            ["mean"],
            r"2_Dense/config\.json: in_features is 64, but the vectors that enter the module have width 32",
        ),
        (
            [Dense(32, 20)],
            ["mean", "cls"],
            r"2_Dense/config\.json: in_features is 32, but the vectors that enter the module have width 64",
        ),
        (
            [Dense(32, 20), Dense(32, 20)],
            ["mean"],
            r"3_Dense/config\.json: in_features is 32, but the vectors that enter the module have width 20",
        ),
        (
            [LayerNorm(20)],
            ["mean"],
            r"2_LayerNorm/config\.json: dimension is 20, but the vectors that enter the module have width 32",
        ),
    ],
)
def test_module_that_does_not_fit_its_input_is_named(
    tmp_path: Path, dense: list[Dense], modes: list[str], message: str
) -> None:
    write_modules_folder(tmp_path, dense, modes)
    with pytest.raises(CheckpointError, match=message):
        check_loadable(EngineSettings(), Checkpoint.read(tmp_path))
