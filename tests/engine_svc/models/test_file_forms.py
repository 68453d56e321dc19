"""Checkpoints of every supported architecture have exactly the same outputs in all file formats of the hub."""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.sequences import PackedBatch
from heddle.checkpoint import Checkpoint, ModelKind
from tests.checkpoints import write_bert, write_json, write_tokenizer
from tests.engine_svc.models.cases import OUTPUTS, Array, Case, run_each_alone
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.file_forms import (
    COMBINED,
    FORMS,
    PICKLED,
    SAFETENSORS,
    pickle_before_torch_1_6,
    round_numbers,
)
from tests.engine_svc.models.overview import ARCHITECTURES
from tests.engine_svc.models.packed import random_batch
from tests.sequences import packed, run_each, sequences_of


def choose_cases(architecture: str) -> list[Case]:
    """Returns the first embedder and the first checkpoint with a head."""
    cases = [case for case in CASES if case.architecture == architecture]
    chosen = (
        next((case for case in cases if (case.kind is ModelKind.EMBEDDER) == is_embedder), None)
        for is_embedder in (True, False)
    )
    return [case for case in chosen if case is not None]


@dataclass(frozen=True)
class Original:
    """A case in its original files, with its outputs."""

    case: Case
    folder: Path
    batch: PackedBatch
    outputs: list[Array]

    def run(self, folder: Path) -> list[Array]:
        return run_case(self.case, folder, self.batch)


def run_case(case: Case, folder: Path, batch: PackedBatch) -> list[Array]:
    backend = TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu", adapter=case.adapter)
    return run_each(backend, batch)


@pytest.fixture(
    scope="module",
    params=[case for architecture in ARCHITECTURES for case in choose_cases(architecture)],
    ids=lambda case: case.id,
)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Original:
    case: Case = request.param
    folder = tmp_path_factory.mktemp("checkpoint")
    case.write(folder)
    round_numbers(folder)
    batch = random_batch(
        (1, 3, 17),
        with_types=case.has_types,
        output=OUTPUTS[case.kind],
        vocabulary_size=Checkpoint.read(folder).vocabulary_size,
    )
    return Original(case, folder, batch, run_case(case, folder, batch))


def change(original: Original, form: Callable[[Path], None], folder: Path) -> Path:
    copy = folder / original.folder.name
    shutil.copytree(original.folder, copy)
    form(copy)
    return copy


@pytest.mark.parametrize("form", COMBINED)
def test_outputs_do_not_depend_on_the_file_format(original: Original, form: str, tmp_path: Path) -> None:
    folder = change(original, COMBINED[form], tmp_path)
    for ours, theirs in zip(original.run(folder), original.outputs, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_every_architecture_is_covered() -> None:
    assert all(choose_cases(architecture) for architecture in ARCHITECTURES)


BERT, BERT_WITH_HEAD = choose_cases("bert")


@pytest.mark.parametrize(
    ("original", "form"),
    [(BERT if form == "with prefix" else BERT_WITH_HEAD, form) for form in FORMS],
    indirect=["original"],
    ids=FORMS,
)
def test_each_file_format_is_read(original: Original, form: str, tmp_path: Path) -> None:
    folder = change(original, FORMS[form], tmp_path)
    assert read_weights(folder) != read_weights(original.folder)
    for ours, theirs in zip(original.run(folder), original.outputs, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def read_weights(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of the weight files by name."""
    files = (path for suffix in (SAFETENSORS, PICKLED) for path in folder.glob(f"*{Path(suffix).suffix}"))
    return {path.name: path.read_bytes() for path in files}


def write_old_sentence_transformer(folder: Path) -> None:
    """Puts each module, also the transformer, into a folder, and pickles all weights."""
    transformer = folder / "0_BERT"
    write_bert(transformer)
    write_tokenizer(transformer)
    pickle_before_torch_1_6(transformer)
    write_json(transformer / "sentence_bert_config.json", {"max_seq_length": 64})
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, "pooling_mode_max_tokens": True})
    settings = {"in_features": 32, "out_features": 20, "activation_function": "torch.nn.modules.activation.Tanh"}
    write_json(folder / "2_Dense" / "config.json", settings)
    torch.save({"linear.weight": torch.randn(20, 32), "linear.bias": torch.ones(20)}, folder / "2_Dense" / PICKLED)
    kinds = {"0_BERT": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    listing = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", listing)


def test_old_sentence_transformers_folders_give_the_same_vectors(tmp_path: Path) -> None:
    write_old_sentence_transformer(tmp_path)
    model = SentenceTransformer(str(tmp_path), device="cpu")
    batch = random_batch((1, 3, 17))
    batch = packed([dataclasses.replace(sequence, skip_normalization=True) for sequence in sequences_of(batch)])

    def reference(ids: Tensor, types: Tensor) -> Tensor:
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return model(inputs)["sentence_embedding"][0]  # type: ignore[no-any-return]

    outputs = run_each(TorchBackend(Checkpoint.read(tmp_path), dtype="float32", device="cpu"), batch)
    for ours, theirs in zip(outputs, run_each_alone(reference, batch), strict=True):
        assert ours.shape == (20,)
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-4)
