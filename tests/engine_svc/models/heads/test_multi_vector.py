"""ColBERT models, as Stanford, PyLate and sentence-transformers lay them out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertModel, PreTrainedModel

from engine_svc.backends.loading import check_loadable
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.sequences import Output
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import write_bert, write_json, write_old_modules, write_tokenizer
from tests.engine_svc.models.cases import Reference, run_each_alone
from tests.engine_svc.models.packed import ALL_LENGTHS, random_batch
from tests.sequences import run_each

DIMENSION = 12


def projected_by(linear: nn.Linear, model: PreTrainedModel) -> Reference:
    def reference(ids: Tensor, types: Tensor) -> Tensor:
        hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        return functional.normalize(linear(hidden), dim=1)

    return reference


def new_projection() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(32, DIMENSION, bias=False)


def assert_served_as(folder: Path, reference: Reference) -> None:
    checkpoint = Checkpoint.read(folder)
    assert (checkpoint.kind, checkpoint.dimension) == (ModelKind.MULTI_VECTOR_EMBEDDER, DIMENSION)
    backend = TorchBackend(checkpoint, dtype="float32", device="cpu")
    assert backend.outputs == {Output.TOKEN_VECTORS}
    batch = random_batch(ALL_LENGTHS, output=Output.TOKEN_VECTORS)
    for ours, theirs in zip(run_each(backend, batch), run_each_alone(reference, batch), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_stanford_colbert(tmp_path: Path) -> None:
    model, linear = write_bert(tmp_path), new_projection()
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file({**tensors, "linear.weight": linear.weight.detach()}, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", {**model.config.to_dict(), "architectures": ["HF_ColBERT"]})
    write_json(tmp_path / "artifact.metadata", {"dim": DIMENSION, "query_token_id": "[unused0]"})
    assert_served_as(tmp_path, projected_by(linear, model))


def test_pylate_colbert(tmp_path: Path) -> None:
    model, linear = write_bert(tmp_path), new_projection()
    write_old_modules(tmp_path, ["Transformer", "pylate.models.Dense.Dense"])
    write_json(tmp_path / "config_sentence_transformers.json", {"model_type": "ColBERT", "query_prefix": "[Q] "})
    settings = {"in_features": 32, "out_features": DIMENSION, "bias": False}
    identity = {"activation_function": "torch.nn.modules.linear.Identity"}
    write_json(tmp_path / "1_Dense" / "config.json", {**settings, **identity})
    save_file({"linear.weight": linear.weight.detach()}, tmp_path / "1_Dense" / "model.safetensors")
    assert_served_as(tmp_path, projected_by(linear, model))


def test_multi_vector_encoder_of_sentence_transformers(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert", BertModel)
    write_tokenizer(tmp_path / "bert")
    tokens = "token_embeddings"
    dense = Dense(32, DIMENSION, bias=False, activation_function=None, module_input_name=tokens)
    modules = [Transformer(str(tmp_path / "bert")), dense, MultiVectorMask(), Normalize(module_input_name=tokens)]
    model = MultiVectorEncoder(modules=modules, device="cpu")
    model.save(str(tmp_path))

    def reference(ids: Tensor, types: Tensor) -> Tensor:
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "task": "document"}
        return model(inputs)["token_embeddings"][0]  # type: ignore[no-any-return]

    assert_served_as(tmp_path, reference)


def test_projection_that_does_not_fit_the_tokens_is_named(tmp_path: Path) -> None:
    write_bert(tmp_path)
    write_old_modules(tmp_path, ["Transformer", "pylate.models.Dense.Dense"])
    write_json(tmp_path / "config_sentence_transformers.json", {"model_type": "ColBERT"})
    write_json(tmp_path / "1_Dense" / "config.json", {"in_features": 31, "out_features": DIMENSION})
    with pytest.raises(
        CheckpointError,
        match=r"1_Dense/config\.json: in_features is 31, but the vectors that enter the module have width 32",
    ):
        check_loadable(EngineSettings(), Checkpoint.read(tmp_path))
