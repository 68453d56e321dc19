"""The backend with a fake TensorRT-LLM, called by either API: it returns what torch returns for the same checkpoint,
and one thread makes all calls."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import LlamaModel, Qwen2Model

from engine_svc.backends.tensorrt_llm.support import check_support
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.sequences import Output
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.sentence_modules import PoolingSetting
from tests.checkpoints import POSITIONS
from tests.engine_svc.backends.tensorrt_llm.conftest import SERVED, VERSIONS, Install, Open, write_embedder
from tests.engine_svc.backends.tensorrt_llm.fake_llm import Llm
from tests.engine_svc.gpus import H100
from tests.engine_svc.models.cases import OUTPUTS, Array, Case
from tests.engine_svc.models.packed import random_batch
from tests.sequences import packed, run_each, sequences_of

# TensorRT-LLM itself uses nested tensors for models that return something for each token.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

SOME_LENGTHS = (5, 1, POSITIONS, 5, 17)


def assert_same(ours: Sequence[Array], theirs: Sequence[Array]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("case", SERVED, ids=lambda case: case.id)
def test_answers_are_those_of_torch(tmp_path: Path, open_backend: Open, install: Install, case: Case) -> None:
    case.write(tmp_path)
    batch = random_batch(SOME_LENGTHS, output=OUTPUTS[case.kind])
    expected = run_each(TorchBackend(Checkpoint.read(tmp_path), dtype="float32", device="cpu"), batch)
    for version in VERSIONS.values():
        install(version)
        check_support(EngineSettings(backend="tensorrt_llm"), Checkpoint.read(tmp_path), H100)
        assert_same(run_each(open_backend(tmp_path), batch), expected)


@pytest.mark.usefixtures("llm")
@pytest.mark.parametrize("pooling", ["mean", "cls", "weighted_mean"])
def test_options_of_a_sequence_act_as_with_torch(tmp_path: Path, open_backend: Open, pooling: PoolingSetting) -> None:
    write_embedder(tmp_path, LlamaModel)
    batch = random_batch(SOME_LENGTHS)
    options: list[dict[str, Any]] = [
        {"skip_normalization": True},
        {"dimensions": 8},
        {"prompt_tokens": 9},
        {"output": Output.TOKEN_VECTORS},
        {"dimensions": 4, "skip_normalization": True},
    ]
    asked = packed([replace(one, **own) for one, own in zip(sequences_of(batch), options, strict=True)])
    theirs = TorchBackend(Checkpoint.read(tmp_path, pooling=pooling), dtype="float32", device="cpu")
    assert_same(run_each(open_backend(tmp_path, pooling), asked), run_each(theirs, asked))


@pytest.mark.usefixtures("llm")
def test_a_sequence_has_the_same_result_alone_and_in_a_batch(tmp_path: Path, open_backend: Open) -> None:
    write_embedder(tmp_path, Qwen2Model)
    backend = open_backend(tmp_path)
    batch = random_batch(SOME_LENGTHS)
    alone = [run_each(backend, packed([one]))[0] for one in sequences_of(batch)]
    assert_same(run_each(backend, batch), alone)


def test_limits_are_passed_on_and_enforced(tmp_path: Path, open_backend: Open, llm: type[Llm]) -> None:
    write_embedder(tmp_path, LlamaModel)
    backend = open_backend(tmp_path, batch_tokens_max=100, batch_items_max=3)
    [made] = llm.made
    assert made.arguments["max_batch_size"] == 3
    assert made.arguments["max_num_tokens"] == 100
    assert made.arguments["max_seq_len"] >= POSITIONS
    assert len(run_each(backend, random_batch([30, 30, 30]))) == 3
    if made.encode_only:
        with pytest.raises(ValueError, match="max_batch_size"):
            run_each(backend, random_batch([1, 1, 1, 1]))
        with pytest.raises(ValueError, match="max_num_tokens"):
            run_each(backend, random_batch([50, 51]))


def test_the_longest_sequence_has_room_in_a_smaller_batch(tmp_path: Path, open_backend: Open, llm: type[Llm]) -> None:
    write_embedder(tmp_path, LlamaModel)
    backend = open_backend(tmp_path, batch_tokens_max=8)
    assert len(run_each(backend, random_batch([POSITIONS]))) == 1
    assert llm.made[0].calls == 1


@pytest.mark.usefixtures("llm")
def test_another_thread_is_refused(tmp_path: Path, open_backend: Open) -> None:
    write_embedder(tmp_path, LlamaModel)
    backend = open_backend(tmp_path)
    refused: list[str] = []

    def use() -> None:
        for call in (lambda: run_each(backend, random_batch([3])), backend.close):
            try:
                call()
            except RuntimeError as error:
                refused.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(refused) == 2
    backend.close()


def test_closing_shuts_down_once_and_leaves_no_files(tmp_path: Path, open_backend: Open, llm: type[Llm]) -> None:
    write_embedder(tmp_path, LlamaModel)
    backend = open_backend(tmp_path)
    [made] = llm.made
    folder = Path(made.arguments["model"])
    assert folder.is_dir()
    backend.close()
    backend.close()
    assert made.shutdowns == 1
    assert not folder.exists()
    with pytest.raises(RuntimeError, match="shut down"):
        run_each(backend, random_batch([3]))


def test_a_failed_batch_leaves_the_backend_usable(tmp_path: Path, open_backend: Open, llm: type[Llm]) -> None:
    write_embedder(tmp_path, LlamaModel)
    backend = open_backend(tmp_path)
    [made] = llm.made
    made.fails_next = MemoryError("CUDA out of memory")
    with pytest.raises(MemoryError):
        run_each(backend, random_batch([3, 4]))
    assert len(run_each(backend, random_batch([3, 4]))) == 2


def test_requests_before_the_one_that_fails_are_aborted(tmp_path: Path, open_backend: Open, install: Install) -> None:
    llm = install("1.2.1")
    write_embedder(tmp_path, LlamaModel)
    backend = open_backend(tmp_path, batch_tokens_max=8)
    with pytest.raises(RuntimeError, match="max_num_tokens"):
        run_each(backend, random_batch([3, 4, 2 * POSITIONS]))
    assert llm.made[0].aborted == 2


def test_fewer_rows_than_tokens_are_an_error(
    tmp_path: Path, open_backend: Open, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With CUDA graphs the real one cuts the output to one row per sequence."""
    llm = install("1.4.0rc1")
    write_embedder(tmp_path, LlamaModel)
    backend = open_backend(tmp_path)
    monkeypatch.setitem(llm.made[0].arguments, "cuda_graph_config", object())
    with pytest.raises(RuntimeError, match="2 hidden states for 7 tokens"):
        run_each(backend, random_batch([3, 4]))
