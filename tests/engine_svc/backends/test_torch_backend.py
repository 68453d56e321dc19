"""The torch backend compared with sentence-transformers: MiniLM on varied texts, and small random models."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification, BertForTokenClassification, BertModel, PreTrainedModel

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.sequences import Output
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import locate
from heddle.checkpoint.sentence_modules import POOLING_BY_MODE
from tests.checkpoints import (
    SMALL_BERT,
    VOCABULARY_SIZE,
    write_bert,
    write_json,
    write_old_modules,
    write_tokenizer,
)
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed, run_each
from tests.texts import varied_texts

BATCH_TOKENS = 2_048

Vectors = np.ndarray[Any, np.dtype[np.float32]]


@pytest.fixture(scope="session")
def minilm() -> Checkpoint:
    return Checkpoint.read(locate("all-MiniLM-L6-v2"))


@pytest.fixture(scope="session")
def minilm_backend(minilm: Checkpoint) -> TorchBackend:
    return TorchBackend(minilm, dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def reference_model(minilm: Checkpoint) -> SentenceTransformer:
    return SentenceTransformer(str(minilm.folder), device="cpu")


@pytest.fixture(scope="session")
def reference(reference_model: SentenceTransformer) -> Vectors:
    """[1000, 384], of `varied_texts(1000)`."""
    return np.asarray(reference_model.encode(varied_texts(1000), batch_size=32))


@pytest.fixture(scope="session")
def sequences(minilm: Checkpoint) -> list[TokenSequence]:
    """The token sequences of `varied_texts(1000)`."""
    tokenizer = Tokenizer.from_file(str(minilm.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(minilm.sequence_tokens_max)
    return [make_sequence(encoding.ids) for encoding in tokenizer.encode_batch(varied_texts(1000))]


def make_sequence(ids: Sequence[int], **wishes: Any) -> TokenSequence:
    return TokenSequence(np.array(ids, "<u4").tobytes(), **wishes)


def random_ids(length: int, seed: int = 0) -> list[int]:
    ids: list[int] = np.random.default_rng(seed).integers(5, VOCABULARY_SIZE, length).tolist()
    return ids


def compute_vectors(backend: TorchBackend, sequences: Sequence[TokenSequence]) -> Vectors:
    """In batches as a scheduler would make them: in the order of arrival, up to a token budget."""
    vectors: list[Vectors] = []
    batch: list[TokenSequence] = []
    for sequence in sequences:
        if sum(waiting.tokens for waiting in batch) + sequence.tokens > BATCH_TOKENS:
            vectors += run_each(backend, packed(batch))
            batch = []
        batch.append(sequence)
    return np.stack([*vectors, *run_each(backend, packed(batch))])


def cosines(ours: Vectors, theirs: Vectors) -> Vectors:
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    products: Vectors = (ours.astype(np.float64) * theirs).sum(1) / norms
    return products


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "count", "least"), [("float32", 1000, 0.99999), ("bfloat16", 1000, 0.999), ("float16", 200, 0.9999)]
)
def test_varied_texts_equal_sentence_transformers(
    minilm: Checkpoint, sequences: list[TokenSequence], reference: Vectors, *, dtype: str, count: int, least: float
) -> None:
    vectors = compute_vectors(TorchBackend(minilm, dtype=dtype, device="cpu"), sequences[:count])
    assert cosines(vectors, reference[:count]).min() > least
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_few_texts_equal_sentence_transformers(
    minilm_backend: TorchBackend, reference_model: SentenceTransformer, sequences: list[TokenSequence]
) -> None:
    reference = np.asarray(reference_model.encode(varied_texts(60)))
    assert cosines(compute_vectors(minilm_backend, sequences[:60]), reference).min() > 0.99999


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.9999999), ("bfloat16", 0.9999), ("float16", 0.9999)])
def test_a_text_has_the_same_vector_alone_and_in_a_batch(
    minilm: Checkpoint, sequences: list[TokenSequence], dtype: str, least: float
) -> None:
    backend = TorchBackend(minilm, dtype=dtype, device="cpu")
    some = [*sequences[:46], max(sequences, key=lambda sequence: sequence.tokens)]
    alone = np.stack([run_each(backend, packed([sequence]))[0] for sequence in some])
    assert cosines(compute_vectors(backend, some), alone).min() > least


@pytest.mark.parametrize("cores", [1, 2])
def test_passes_that_run_at_once_agree_with_one_alone(
    minilm_backend: TorchBackend, sequences: list[TokenSequence], cores: int
) -> None:
    batches = [packed(sequences[start : start + 20]) for start in range(0, 80, 20)]
    alone = [np.stack(run_each(minilm_backend, batch)) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        at_once = threads.map(lambda batch: np.stack(run_each(minilm_backend, batch, cores)), batches * 3)
    for together, expected in zip(at_once, alone * 3, strict=True):
        np.testing.assert_allclose(together, expected, atol=1e-5)


def test_results_come_in_the_order_of_the_batch(minilm_backend: TorchBackend, sequences: list[TokenSequence]) -> None:
    some = sequences[:40]
    np.testing.assert_allclose(
        compute_vectors(minilm_backend, some[::-1])[::-1], compute_vectors(minilm_backend, some), atol=1e-5
    )


def test_lengths_from_one_to_the_longest_share_a_batch(minilm: Checkpoint, minilm_backend: TorchBackend) -> None:
    longest = minilm.sequence_tokens_max
    some = [make_sequence(random_ids(length, seed=length)) for length in (1, longest, 2, 3, 33, longest, 17, 1)]
    together = compute_vectors(minilm_backend, some)
    alone = np.stack([run_each(minilm_backend, packed([sequence]))[0] for sequence in some])
    assert cosines(together, alone).min() > 0.9999999


def test_sequences_with_different_options_share_a_batch(minilm_backend: TorchBackend) -> None:
    ids = random_ids(9)
    whole, raw, cut, cut_raw, tokens = run_each(
        minilm_backend,
        packed(
            [
                make_sequence(ids),
                make_sequence(ids, skip_normalization=True),
                make_sequence(ids, dimensions=64),
                make_sequence(ids, dimensions=64, skip_normalization=True),
                make_sequence(ids, output=Output.TOKEN_VECTORS),
            ]
        ),
    )
    assert {array.dtype for array in (whole, raw, cut, cut_raw, tokens)} == {np.dtype(np.float32)}
    assert [array.shape for array in (whole, raw, cut, cut_raw, tokens)] == [(384,), (384,), (64,), (64,), (9, 384)]
    np.testing.assert_allclose(tokens.mean(0), raw, atol=1e-6)
    np.testing.assert_allclose(whole, raw / np.linalg.norm(raw), atol=1e-6)
    np.testing.assert_allclose(cut, raw[:64] / np.linalg.norm(raw[:64]), atol=1e-6)
    np.testing.assert_allclose(cut_raw, raw[:64], atol=1e-6)


def test_the_prompt_is_computed_but_not_pooled(minilm_backend: TorchBackend) -> None:
    ids = random_ids(9)
    pooled, tokens = run_each(
        minilm_backend,
        packed(
            [
                make_sequence(ids, prompt_tokens=4, skip_normalization=True),
                make_sequence(ids, output=Output.TOKEN_VECTORS),
            ]
        ),
    )
    np.testing.assert_allclose(pooled, tokens[4:].mean(0), atol=1e-6)


@pytest.mark.parametrize("mode", POOLING_BY_MODE)
def test_new_form_of_sentence_transformers_is_served_as_it_says(tmp_path: Path, mode: str) -> None:
    model = saved_by_sentence_transformers(tmp_path, mode)
    assert '"pooling_mode":' in (tmp_path / "1_Pooling" / "config.json").read_text()
    assert_equal_to(model, tmp_path)


@pytest.mark.parametrize("mode", ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken"])
def test_old_form_of_sentence_transformers_is_served_as_it_says(tmp_path: Path, mode: str) -> None:
    saved_by_sentence_transformers(tmp_path, "mean")
    settings = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True}
    (tmp_path / "1_Pooling" / "config.json").unlink()
    write_old_modules(tmp_path, ["Transformer", "Pooling"], settings)
    assert_equal_to(SentenceTransformer(str(tmp_path), device="cpu"), tmp_path)


def saved_by_sentence_transformers(folder: Path, mode: str) -> SentenceTransformer:
    write_bert(folder / "bert")
    write_tokenizer(folder / "bert")
    model = SentenceTransformer(
        modules=[Transformer(str(folder / "bert")), Pooling(SMALL_BERT["hidden_size"], mode), Normalize()],
        device="cpu",
    )
    model.save(str(folder))
    return model


@torch.inference_mode()
def assert_equal_to(model: SentenceTransformer, folder: Path) -> None:
    id_lists = [random_ids(length, seed=length) for length in (1, 2, 9, 31, 64)]
    theirs = []
    for ids in id_lists:
        tensor = torch.tensor([ids])
        theirs.append(model({"input_ids": tensor, "attention_mask": torch.ones_like(tensor)})["sentence_embedding"][0])
    backend = TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu")
    ours = compute_vectors(backend, [make_sequence(ids) for ids in id_lists])
    assert cosines(ours, torch.stack(theirs).numpy()).min() > 0.99999


def test_vectors_are_cut_as_the_checkpoint_says(tmp_path: Path) -> None:
    write_bert(tmp_path)
    write_json(tmp_path / "config_sentence_transformers.json", {"truncate_dim": 8})
    backend = TorchBackend(Checkpoint.read(tmp_path), dtype="float32", device="cpu")
    [vector] = run_each(backend, packed([make_sequence(random_ids(5))]))
    assert vector.shape == (8,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_nan_of_one_sequence_spares_the_others(tmp_path: Path) -> None:
    model = write_bert(tmp_path)
    with torch.no_grad():
        model.get_parameter("embeddings.word_embeddings.weight")[7] = float("nan")
    model.save_pretrained(tmp_path)
    backend = TorchBackend(Checkpoint.read(tmp_path), dtype="float16", device="cpu")
    bad, *good = run_each(backend, packed([make_sequence([5, 7]), make_sequence([5, 6]), make_sequence([8, 9, 10])]))
    assert np.isnan(bad).any()
    assert all(np.isfinite(vector).all() for vector in good)


def test_the_data_type_is_the_requested_one(minilm: Checkpoint) -> None:
    assert TorchBackend(minilm, dtype="bfloat16", device="cpu").data_type == "bfloat16"
    has_bfloat16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    assert TorchBackend(minilm, device="cpu").data_type == ("bfloat16" if has_bfloat16 else "float32")


def test_scores_are_computed_in_float32_unless_asked_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    write_bert(tmp_path, BertForSequenceClassification)
    checkpoint = Checkpoint.read(tmp_path)
    assert TorchBackend(checkpoint, device="cpu").data_type == "float32"
    assert TorchBackend(checkpoint, dtype="bfloat16", device="cpu").data_type == "bfloat16"


@pytest.mark.parametrize(
    ("model_class", "outputs"),
    [
        (BertModel, {Output.VECTOR, Output.TOKEN_VECTORS}),
        (BertForSequenceClassification, {Output.LOGITS}),
        (BertForTokenClassification, {Output.TOKEN_LOGITS}),
    ],
)
def test_outputs_are_those_of_the_kind_of_model(
    tmp_path: Path, model_class: type[PreTrainedModel], outputs: set[Output]
) -> None:
    write_bert(tmp_path, model_class)
    assert TorchBackend(Checkpoint.read(tmp_path)).outputs == outputs


def test_a_closed_backend_releases_its_weights(tmp_path: Path) -> None:
    write_bert(tmp_path)
    backend = TorchBackend(Checkpoint.read(tmp_path), device="cpu")
    backend.close()
    with pytest.raises(AttributeError):
        run_each(backend, packed([make_sequence([5])]))
