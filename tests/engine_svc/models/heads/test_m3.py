"""The heads of bge-m3 against FlagEmbedding's formulas: any mix of outputs, in one forward pass."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.model import Model
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.transformer import Transformer
from engine_svc.sequences import Output
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.engine_svc.models.cases import Array
from tests.engine_svc.models.packed import ALL_LENGTHS
from tests.sequences import Sequence, run_each
from tests.small_models.m3 import SmallM3, token_weights, write_m3

DENSE, SPARSE, COLBERT, HIDDEN = Output.VECTOR, Output.SPARSE_VECTOR, Output.COLBERT_VECTORS, Output.TOKEN_VECTORS
ALL = (DENSE, SPARSE, COLBERT)
# Each output alone, and several in different orders.
MIXES = (ALL, (DENSE,), (COLBERT, SPARSE), (SPARSE,), (HIDDEN, DENSE), (COLBERT,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("m3")


@pytest.fixture(scope="module")
def small(folder: Path) -> SmallM3:
    return write_m3(folder)


@pytest.fixture(scope="module")
def backend(folder: Path, small: SmallM3) -> TorchBackend:
    return TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu")


def sequences(vocabulary: int, mixes: tuple[tuple[Output, ...], ...] = (ALL,)) -> list[Sequence]:
    """Sequences with repeated ids and special tokens."""
    rng = np.random.default_rng(0)
    return [
        Sequence(
            rng.integers(0, min(24, vocabulary), length, np.uint32).tobytes(),
            output=mixes[index % len(mixes)][0],
            more_outputs=mixes[index % len(mixes)][1:],
        )
        for index, length in enumerate(ALL_LENGTHS)
    ]


def list_ids(sequence: Sequence) -> list[int]:
    return [int(token_id) for token_id in np.frombuffer(sequence.token_ids, "<u4")]


def run(backend: TorchBackend, batch: list[Sequence]) -> list[dict[Output, Array]]:
    arrays = iter(run_each(backend, batch))
    return [{output: next(arrays) for output in sequence.outputs} for sequence in batch]


def check(small: SmallM3, sequence: Sequence, found: dict[Output, Array]) -> None:
    expected = small.vectors_of(list_ids(sequence))
    if DENSE in found:
        np.testing.assert_allclose(found[DENSE], expected.dense, atol=1e-5)
    if COLBERT in found:
        assert found[COLBERT].shape == expected.colbert.shape == (sequence.tokens - 1, 32)
        np.testing.assert_allclose(found[COLBERT], expected.colbert, atol=1e-5)
    if SPARSE in found:
        weights = token_weights(found[SPARSE])
        assert list(weights) == sorted(expected.lexical_weights)
        assert weights == pytest.approx(expected.lexical_weights, abs=1e-5)
    if HIDDEN in found:
        assert found[HIDDEN].shape == (sequence.tokens, 32)


def test_vectors_are_those_of_flag_embedding(backend: TorchBackend, small: SmallM3) -> None:
    batch = sequences(small.model.config.vocab_size)
    results = run(backend, batch)
    assert any(len(token_weights(found[SPARSE])) > 3 for found in results)
    for sequence, found in zip(batch, results, strict=True):
        check(small, sequence, found)


def test_outputs_of_a_sequence_do_not_depend_on_the_batch(backend: TorchBackend, small: SmallM3) -> None:
    batch = sequences(small.model.config.vocab_size, MIXES)
    for sequence, found in zip(batch, run(backend, batch), strict=True):
        assert tuple(found) == sequence.outputs
        check(small, sequence, found)
        [alone] = run(backend, [sequence])
        for output in sequence.outputs:
            np.testing.assert_allclose(found[output], alone[output], atol=1e-5)


def test_one_forward_pass_makes_all_three(
    backend: TorchBackend, small: SmallM3, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    forward = Transformer.__call__

    def counted(transformer: Transformer, tokens: PackedTokens) -> Tensor:
        calls.append(tokens)
        return forward(transformer, tokens)

    monkeypatch.setattr(Transformer, "__call__", counted)
    run(backend, sequences(small.model.config.vocab_size))
    assert len(calls) == 1


def test_dimensions_and_skip_normalization_are_honoured(backend: TorchBackend, small: SmallM3) -> None:
    plain = sequences(small.model.config.vocab_size)[-2]
    wish = replace(plain, dimensions=8, skip_normalization=True)
    [whole], [cut] = run(backend, [plain]), run(backend, [wish])
    assert cut[DENSE].shape == (8,)
    assert np.linalg.norm(cut[COLBERT], axis=1) != pytest.approx(1, abs=1e-2)
    direction = cut[COLBERT] / np.linalg.norm(cut[COLBERT], axis=1, keepdims=True)
    np.testing.assert_allclose(direction, whole[COLBERT], atol=1e-5)


def test_nan_stays_in_sparse_vectors(folder: Path, small: SmallM3, tmp_path: Path) -> None:
    write_m3(tmp_path)
    torch.save({"weight": torch.full((1, 32), torch.nan), "bias": torch.zeros(1)}, tmp_path / "sparse_linear.pt")
    backend = TorchBackend(Checkpoint.read(tmp_path), dtype="float32", device="cpu")
    [found] = run(backend, [Sequence(np.array([0, 9, 2], "<u4").tobytes(), output=SPARSE)])
    assert np.isnan(found[SPARSE]).any()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this code must not run",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Evil()), r"colbert_linear\.pt cannot be read"),
        (b"not a file of torch", r"colbert_linear\.pt cannot be read"),
        ({"bias": torch.zeros(32)}, "has no tensor weight"),
        ({"weight": torch.zeros(16, 32), "bias": torch.zeros(16)}, r"has shape \[16, 32\], expected \[32, 32\]"),
        ([1, 2], "does not hold a dictionary of tensors"),
    ],
)
def test_malformed_file_is_refused_and_none_of_its_code_runs(
    tmp_path: Path, content: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_m3(tmp_path)
    path = tmp_path / "colbert_linear.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=words):
        Model.load(Checkpoint.read(tmp_path), dtype=torch.float32, device=torch.device("meta"))
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["sparse_linear.pt", "colbert_linear.pt"])
def test_folder_with_one_of_the_two_heads_is_refused(tmp_path: Path, name: str) -> None:
    write_m3(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        Checkpoint.read(tmp_path)


def test_special_tokens_are_those_that_the_tokenizer_s_files_name(tmp_path: Path) -> None:
    write_m3(tmp_path)
    heads = Checkpoint.read(tmp_path).m3
    assert heads is not None
    assert heads.ids_without_weight == {0, 1, 2, 3}
    (tmp_path / "special_tokens_map.json").write_text('{"unk_token": {"content": "<s>"}}')
    heads = Checkpoint.read(tmp_path).m3
    assert heads is not None
    assert heads.ids_without_weight == {0, 1, 2}
