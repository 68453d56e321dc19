"""The heads of classifiers, rerankers and token classifiers against transformers' own, on small random checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification, BertForTokenClassification, PreTrainedModel

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.sequences import PackedBatch
from heddle.checkpoint import Checkpoint
from tests.checkpoints import write_bert
from tests.engine_svc.models.packed import ALL_LENGTHS, random_batch, split
from tests.sequences import packed, run_each, sequences_of

HEADS = [
    pytest.param(BertForSequenceClassification, 1, id="reranker"),
    pytest.param(BertForSequenceClassification, 5, id="classifier"),
    pytest.param(BertForTokenClassification, 9, id="token classifier"),
]

Logits = np.ndarray[Any, np.dtype[np.float32]]


def load_backend(folder: Path, dtype: str = "float32") -> TorchBackend:
    return TorchBackend(Checkpoint.read(folder), dtype=dtype, device="cpu")


@torch.inference_mode()
def run_each_alone(model: PreTrainedModel, batch: PackedBatch) -> list[Logits]:
    """Each sequence alone, so that nothing is padded there."""
    columns = zip(split(batch.token_ids, batch), split(batch.type_ids, batch), strict=True)
    return [model(input_ids=ids[None], token_type_ids=types[None]).logits[0].numpy() for ids, types in columns]


@pytest.mark.parametrize(("model_class", "labels"), HEADS)
def test_logits_equal_transformers(tmp_path: Path, model_class: type[PreTrainedModel], labels: int) -> None:
    model = write_bert(tmp_path, model_class, num_labels=labels)
    batch = random_batch(ALL_LENGTHS, with_types=True)
    for ours, theirs in zip(run_each(load_backend(tmp_path), batch), run_each_alone(model, batch), strict=True):
        assert ours.dtype == np.float32
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("model_class", "labels"), HEADS)
def test_logits_of_a_sequence_do_not_depend_on_its_batch(
    tmp_path: Path, model_class: type[PreTrainedModel], labels: int
) -> None:
    write_bert(tmp_path, model_class, num_labels=labels)
    backend, batch = load_backend(tmp_path), random_batch(ALL_LENGTHS, with_types=True)
    together = run_each(backend, batch)
    backwards = run_each(backend, packed(sequences_of(batch)[::-1]))[::-1]
    for index, sequence in enumerate(sequences_of(batch)):
        [alone] = run_each(backend, packed([sequence]))
        np.testing.assert_allclose(together[index], alone, atol=1e-5)
        np.testing.assert_allclose(backwards[index], alone, atol=1e-5)


@pytest.mark.parametrize(("model_class", "labels"), HEADS)
def test_type_ids_of_a_pair_count(tmp_path: Path, model_class: type[PreTrainedModel], labels: int) -> None:
    write_bert(tmp_path, model_class, num_labels=labels)
    pair, text = sequences_of(random_batch([12], with_types=True))[0], sequences_of(random_batch([12]))[0]
    assert pair.token_ids == text.token_ids
    as_pair, as_text = run_each(load_backend(tmp_path), packed([pair, text]))
    assert np.abs(as_pair - as_text).max() > 0.01


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("model_class", "labels"), HEADS)
def test_the_head_computes_in_float32_whatever_the_encoder_does(
    tmp_path: Path, model_class: type[PreTrainedModel], labels: int, dtype: str
) -> None:
    model = write_bert(tmp_path, model_class, num_labels=labels)
    batch = random_batch(ALL_LENGTHS)
    ours, theirs = run_each(load_backend(tmp_path, dtype), batch), run_each_alone(model, batch)
    flat = np.concatenate([array.ravel() for array in ours])
    assert not np.array_equal(flat, torch.from_numpy(flat).to(getattr(torch, dtype)).float().numpy())
    assert np.corrcoef(flat, np.concatenate([array.ravel() for array in theirs]))[0, 1] > 0.99


@pytest.mark.parametrize(("model_class", "labels"), HEADS)
def test_nan_of_one_sequence_spares_the_others(tmp_path: Path, model_class: type[PreTrainedModel], labels: int) -> None:
    model = write_bert(tmp_path, model_class, num_labels=labels)
    batch = random_batch([4, 4, 9])
    bad_id, *others = batch.token_ids.tolist()
    assert bad_id not in others
    with torch.no_grad():
        model.get_parameter("bert.embeddings.word_embeddings.weight")[bad_id] = float("nan")
    model.save_pretrained(tmp_path)
    bad, *good = run_each(load_backend(tmp_path), batch)
    assert np.isnan(bad).any()
    assert all(np.isfinite(array).all() for array in good)
