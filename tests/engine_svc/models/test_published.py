"""The checkpoints in the table of models: small copies with the published configuration, tensor names and files,
against transformers and sentence-transformers, or against the authors' own code."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.model import Model
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint import Checkpoint, ModelKind
from tests.engine_svc.models import published_references
from tests.engine_svc.models.cases import Array, run_each_alone
from tests.engine_svc.models.published_checkpoints import PUBLISHED, Published
from tests.engine_svc.models.published_references import random_batch
from tests.sequences import dense, packed, run_each, sequences_of


@dataclass(frozen=True)
class Small:
    """A published checkpoint on disk, a batch for it, and the expected outputs."""

    published: Published
    checkpoint: Checkpoint
    batch: PackedBatch
    expected: list[Array]
    backend: TorchBackend

    def outputs(self, batch: PackedBatch) -> list[Array]:
        arrays = run_each(self.backend, batch)
        if self.checkpoint.kind is ModelKind.SPARSE_EMBEDDER:
            return list(dense(arrays, self.checkpoint.vocabulary_size))
        return arrays


@pytest.fixture(scope="module", params=PUBLISHED, ids=lambda published: published.name)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    published: Published = request.param
    folder = tmp_path_factory.mktemp("checkpoint")
    reference = published_references.write(published, folder)
    checkpoint = Checkpoint.read(folder, published.name, published.pooling)
    batch = random_batch(published, checkpoint)
    backend = TorchBackend(checkpoint, dtype="float32", device="cpu", adapter=published.adapter)
    return Small(published, checkpoint, batch, run_each_alone(reference, batch), backend)


def test_folder_is_read_as_its_authors_describe_it(small: Small) -> None:
    checkpoint, expected = small.checkpoint, small.published.content["expected"]
    read = {
        "kind": checkpoint.kind,
        "pooling": list(checkpoint.pooling),
        "normalizes": checkpoint.normalizes,
        "tokens_max": checkpoint.sequence_tokens_max,
        "labels": len(checkpoint.labels),
        "prompts": sorted(checkpoint.prompts),
        "default_prompt": checkpoint.default_prompt_name,
        "multi_label": checkpoint.multi_label,
    }
    nothing = {"pooling": [], "normalizes": False, "labels": 0, "prompts": [], "default_prompt": ""}
    assert read == {**nothing, "multi_label": False, **expected}


def test_no_tensor_is_left_over(small: Small) -> None:
    """A tensor that the model does not use is reported to the operator, unless it is known not to matter."""
    model = Model.load(
        small.checkpoint, dtype=torch.float32, device=torch.device("meta"), adapter=small.published.adapter
    )
    assert not model.unused


def test_outputs_equal_the_reference(small: Small) -> None:
    for ours, theirs in zip(small.outputs(small.batch), small.expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(theirs).max() > 0.01
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


def test_vectors_equal_those_of_its_modules(small: Small) -> None:
    """The reference is Pooling, Dense and Normalize, loaded from the folder by sentence-transformers."""
    if "modules.json" not in small.published.content["files"] or small.published.kind is not ModelKind.EMBEDDER:
        pytest.skip("has no modules that make vectors")
    compute_vector = published_references.compute_vector(small.checkpoint.folder)
    batch = packed(
        [
            dataclasses.replace(sequence, output=Output.VECTOR, skip_normalization=not small.checkpoint.normalizes)
            for sequence in sequences_of(small.batch)
        ]
    )
    for ours, hidden in zip(small.outputs(batch), small.expected, strict=True):
        theirs = compute_vector(torch.from_numpy(hidden)).detach().numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


def test_text_alone_equals_itself_in_a_batch(small: Small) -> None:
    together = small.outputs(small.batch)
    for index in (1, 4):
        [alone] = small.outputs(packed([sequences_of(small.batch)[index]]))
        np.testing.assert_allclose(together[index], alone, atol=1e-5, rtol=0)
