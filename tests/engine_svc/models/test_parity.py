"""Every architecture against transformers, or a reference written from its description: the same outputs for the same
weights, whatever the lengths and the rest of the batch."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.model import Model
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint import Checkpoint, ModelKind
from tests.engine_svc.models.cases import OUTPUTS, POOLED, Array, Case, run_each_alone
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.packed import random_batch
from tests.sequences import dense, packed, run_each, sequences_of

# Operations whose result shapes PyTorch computes in C++, without its Python compiler.
CHEAP_ON_META = frozenset(
    {"_to_copy", "add_", "clone", "empty", "index", "permute", "slice", "split_with_sizes", "unbind", "view"}
)


@dataclass(frozen=True)
class Parity:
    """A case on disk, a batch for it, and the expected outputs."""

    case: Case
    checkpoint: Checkpoint
    batch: PackedBatch
    expected: list[Array]

    def outputs(self, dtype: str, batch: PackedBatch | None = None) -> list[Array]:
        backend = TorchBackend(self.checkpoint, dtype=dtype, device="cpu", adapter=self.case.adapter)
        arrays = run_each(backend, batch or self.batch)
        if self.checkpoint.kind is ModelKind.SPARSE_EMBEDDER:
            return list(dense(arrays, self.checkpoint.vocabulary_size))
        return arrays


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.id)
def parity(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parity:
    case: Case = request.param
    folder = tmp_path_factory.mktemp("checkpoint")
    reference = case.write(folder)
    checkpoint = Checkpoint.read(folder)
    batch = random_batch(
        case.lengths,
        with_types=case.has_types,
        output=OUTPUTS[case.kind],
        vocabulary_size=checkpoint.vocabulary_size,
    )
    return Parity(case, checkpoint, batch, run_each_alone(reference, batch))


def cosine(ours: Array, theirs: Array) -> float:
    """The smallest cosine of a row, if there are rows."""
    ours, theirs = np.atleast_2d(ours).astype(np.float64), np.atleast_2d(theirs).astype(np.float64)
    return float(((ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)).min())


def test_outputs_equal_the_reference_in_float32(parity: Parity) -> None:
    assert parity.checkpoint.kind is parity.case.kind
    for ours, theirs in zip(parity.outputs("float32"), parity.expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(theirs).max() > 0.01
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


def test_vectors_of_every_pooling_are_those_of_the_reference(parity: Parity) -> None:
    """All poolings are concatenated, before normalization."""
    if parity.case.kind is not ModelKind.EMBEDDER:
        pytest.skip("has no vectors")
    width = parity.checkpoint.dimension * len(POOLED)
    checkpoint = dataclasses.replace(parity.checkpoint, pooling=tuple(POOLED), dimension=width)
    batch = packed(
        [
            dataclasses.replace(sequence, output=Output.VECTOR, skip_normalization=True)
            for sequence in sequences_of(parity.batch)
        ]
    )
    vectors = dataclasses.replace(parity, checkpoint=checkpoint).outputs("float32", batch)
    for ours, hidden in zip(vectors, parity.expected, strict=True):
        theirs = np.concatenate([pooled(hidden) for pooled in POOLED.values()])
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


def test_outputs_in_bfloat16_point_where_the_reference_does(parity: Parity) -> None:
    outputs, expected = parity.outputs("bfloat16"), parity.expected
    if parity.case.kind in (
        ModelKind.RERANKER,
        ModelKind.CLASSIFIER,
    ):  # few numbers each: together they have a direction
        outputs, expected = [np.concatenate(outputs)], [np.concatenate(expected)]
    for ours, theirs in zip(outputs, expected, strict=True):
        assert cosine(ours, theirs) > 0.999


def test_sequence_alone_equals_itself_in_a_batch(parity: Parity) -> None:
    sequences = sequences_of(parity.batch)
    together = parity.outputs("float32")
    for index in (0, 1, 5, 13, len(sequences) - 2):
        [alone] = parity.outputs("float32", packed([sequences[index]]))
        np.testing.assert_allclose(together[index], alone, atol=1e-5, rtol=0)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations whose results are on the device "meta"."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, list | tuple) and result else result
        if isinstance(first, torch.Tensor) and first.is_meta:
            self.names.add(operation.overloadpacket.__name__)
        return result


def test_checkpoint_is_checked_without_its_weights(parity: Parity) -> None:
    """A pod checks a checkpoint on the device "meta" before it opens a port. Other operations would make PyTorch import
    its compiler, which takes more than a second."""
    with Operations() as operations:
        model = Model.load(parity.checkpoint, dtype=torch.float32, device=torch.device("meta"))
    assert model.transformer.embeddings.words.is_meta
    assert operations.names <= CHEAP_ON_META
