"""The SPLADE head against sentence-transformers' SparseEncoder, on small random checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import BertForMaskedLM

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.heads import splade
from engine_svc.models.model import Model
from engine_svc.sequences import PackedBatch
from heddle.checkpoint import Checkpoint
from tests.checkpoints import VOCABULARY_SIZE, write_bert, write_tokenizer
from tests.engine_svc.models.packed import ALL_LENGTHS, random_batch
from tests.sequences import Sequence as TokenSequence
from tests.sequences import dense, packed, run_each, sequences_of

POOLINGS = [
    {"pooling_strategy": strategy, "activation_function": activation}
    for strategy in ("max", "sum")
    for activation in ("relu", "log1p_relu")
]

Vectors = np.ndarray[Any, np.dtype[np.float32]]


@pytest.fixture(params=[splade.SLICE_ROWS_CPU, 5])
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In few slices, or in many that end inside sequences and between them."""
    monkeypatch.setattr(splade, "SLICE_ROWS_CPU", request.param)


def saved_by_sentence_transformers(
    folder: Path, *, max_active_dims: int | None = None, tied: bool = True, **pooling: Any
) -> SparseEncoder:
    write_bert(folder / "bert", BertForMaskedLM, tie_word_embeddings=tied)
    write_tokenizer(folder / "bert")
    transformer = Transformer(str(folder / "bert"), transformer_task="fill-mask")
    modules = [transformer, SpladePooling(**pooling)]
    model = SparseEncoder(modules=modules, device="cpu", max_active_dims=max_active_dims)
    model.save(str(folder))
    return model


def load_backend(folder: Path, dtype: str = "float32") -> TorchBackend:
    return TorchBackend(Checkpoint.read(folder), dtype=dtype, device="cpu")


@torch.inference_mode()
def run_each_alone(model: SparseEncoder, batch: PackedBatch) -> Vectors:
    """Each sequence alone, through the modules."""
    vectors = []
    for sequence in sequences_of(batch):
        ids = torch.from_numpy(np.frombuffer(sequence.token_ids, "<u4").astype(np.int64))[None]
        vectors.append(model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["sentence_embedding"][0])
    return torch.stack(vectors).numpy()


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("pooling", POOLINGS, ids=lambda pooling: " ".join(pooling.values()))
def test_vectors_equal_the_modules_of_sentence_transformers(tmp_path: Path, pooling: dict[str, Any]) -> None:
    model = saved_by_sentence_transformers(tmp_path, **pooling)
    batch = random_batch(ALL_LENGTHS)
    ours, theirs = dense(run_each(load_backend(tmp_path), batch), VOCABULARY_SIZE), run_each_alone(model, batch)
    assert ours.shape == (len(ALL_LENGTHS), VOCABULARY_SIZE)
    assert ours.dtype == np.float32
    assert 0.1 < (theirs == 0).mean() < 0.9
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("max_active_dims", [None, 7])
def test_vectors_equal_those_of_sparse_encoder(tmp_path: Path, max_active_dims: int | None) -> None:
    model = saved_by_sentence_transformers(tmp_path, max_active_dims=max_active_dims)
    texts = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11 w12"]
    sequences = [TokenSequence(np.array(model.tokenizer(text)["input_ids"], "<u4").tobytes()) for text in texts]
    ours = dense(run_each(load_backend(tmp_path), packed(sequences)), VOCABULARY_SIZE)
    theirs = model.encode(texts, convert_to_sparse_tensor=False).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    if max_active_dims is not None:
        assert ((ours != 0).sum(1) == max_active_dims).all()


def test_vector_of_a_sequence_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    saved_by_sentence_transformers(tmp_path)
    backend, batch = load_backend(tmp_path), random_batch(ALL_LENGTHS)
    alone = np.concatenate([dense(run_each(backend, [sequence]), VOCABULARY_SIZE) for sequence in sequences_of(batch)])
    np.testing.assert_allclose(dense(run_each(backend, batch), VOCABULARY_SIZE), alone, atol=1e-5)
    backwards = run_each(backend, packed(sequences_of(batch)[::-1]))
    np.testing.assert_allclose(dense(backwards[::-1], VOCABULARY_SIZE), alone, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_short_types_stay_close_to_float32(tmp_path: Path, dtype: str, strategy: str) -> None:
    saved_by_sentence_transformers(tmp_path, pooling_strategy=strategy)
    batch = random_batch(ALL_LENGTHS)
    short, exact = (
        dense(run_each(load_backend(tmp_path, each), batch), VOCABULARY_SIZE) for each in (dtype, "float32")
    )
    assert short.dtype == np.float32
    cosines = (short * exact).sum(1) / np.linalg.norm(short, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosines.min() > 0.995


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_nan_of_one_sequence_spares_the_others(tmp_path: Path, strategy: str) -> None:
    # A decoder that shared the words would spread their NaN to all.
    saved_by_sentence_transformers(tmp_path, tied=False, pooling_strategy=strategy)
    batch = random_batch([4, 4, 9])
    bad_id, *others = batch.token_ids.tolist()
    assert bad_id not in others
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["bert.embeddings.word_embeddings.weight"][bad_id] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    bad, *good = run_each(load_backend(tmp_path), batch)
    assert np.isnan(bad).any()
    assert all(np.isfinite(vector).all() for vector in good)


@pytest.mark.parametrize("rows", [splade.SLICE_ROWS_CUDA, 5, 16])
@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_reduction_on_a_gpu_equals_that_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, strategy: str
) -> None:
    saved_by_sentence_transformers(tmp_path, pooling_strategy=strategy)
    head = Model.load(Checkpoint.read(tmp_path), dtype=torch.float32, device=torch.device("cpu")).head
    assert isinstance(head, splade.SpladeHead)
    monkeypatch.setattr(splade, "SLICE_ROWS_CUDA", rows)
    bounds = random_batch([1, 2, 5, 5, 17, 3]).cu_seqlens
    transformed = torch.randn(int(bounds[-1]), 32, generator=torch.Generator().manual_seed(0))
    by_length, by_segments = torch.zeros(2, len(bounds) - 1, head.vocabulary_size)
    with torch.inference_mode():
        head._reduce_by_length(transformed, bounds, by_length)
        head._reduce_segments(transformed, torch.from_numpy(bounds), bounds, by_segments)
    assert by_length.any()
    torch.testing.assert_close(by_segments, by_length)
