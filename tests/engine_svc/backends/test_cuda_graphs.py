"""CUDA graphs on a CPU, where a replay calls the captured function again on the static inputs."""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertModel

from engine_svc.backends.cuda_graphs import Capture, CudaGraphs, Function, capture_graphs, make_batch, make_lengths
from engine_svc.models import transformer as transformer_module
from engine_svc.models.attention import attend
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.layout import Layout
from engine_svc.models.model import Model
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.transformer import Transformer
from heddle.checkpoint import Checkpoint
from tests.checkpoints import write_bert, write_tokenizer
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed as packed_batch

CPU = torch.device("cpu")
LENGTHS = [[5], [1], [2, 3, 4], [8], [1] * 20, [3] * 60, [100, 1, 60], [256], [253, 1, 1, 1], [64] * 4]


def capture(function: Function) -> tuple[Tensor, Callable[[], None]]:
    output = function()

    def replay() -> None:
        output.copy_(function())

    return output, replay


def attend_by_cu_seqlens(query: Tensor, key: Tensor, value: Tensor, layout: Layout, _: AttentionPattern) -> Tensor:
    """Like a kernel on a GPU, reads only the lengths that are on the device. Rows that belong to no sequence are
    NaN."""
    result = torch.full_like(query, torch.nan)
    for start, stop in itertools.pairwise(layout.cu_seqlens.tolist()):
        assert stop - start <= layout.max_length
        if stop > start:
            own, keys, values = (part[start:stop].transpose(0, 1)[None] for part in (query, key, value))
            result[start:stop] = functional.scaled_dot_product_attention(own, keys, values)[0].transpose(0, 1)
    return result


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Transformer:
    folder: Path = tmp_path_factory.mktemp("bert")
    write_bert(folder, BertModel, max_position_embeddings=256)
    write_tokenizer(folder)
    return Model.load(Checkpoint.read(folder), dtype=torch.float32, device=CPU).transformer


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer_module, "attend", attend_by_cu_seqlens)


@pytest.fixture(scope="module")
def graphs(transformer: Transformer) -> Iterator[CudaGraphs]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformer_module, "attend", attend_by_cu_seqlens)
        yield capture_on_cpu(transformer)


def capture_on_cpu(
    transformer: Callable[[PackedTokens], Tensor], capture: Capture = capture, sequence_tokens_max: int = 256
) -> CudaGraphs:
    return capture_graphs(
        transformer, capture, device=CPU, dtype=torch.float32, sequence_tokens_max=sequence_tokens_max
    )


def packed(lengths: Sequence[int], seed: int = 0) -> PackedTokens:
    random = np.random.default_rng(seed)
    sequences = [TokenSequence(random.integers(5, 90, length).astype("<u4").tobytes()) for length in lengths]
    return PackedTokens.of(packed_batch(sequences), device=CPU, dtype=torch.float32)


def test_replayed_batches_are_those_of_the_transformer_whatever_ran_before(
    transformer: Transformer, graphs: CudaGraphs
) -> None:
    ran = 0
    for seed, lengths in enumerate([*LENGTHS, *reversed(LENGTHS)]):
        tokens = packed(lengths, seed)
        graph = graphs.find(tokens)
        if graph is not None:
            ran += 1
            torch.testing.assert_close(graph.run(tokens), transformer(tokens), atol=1e-5, rtol=1e-5)
    assert ran >= 2 * len(LENGTHS) - 2


def test_the_next_replay_does_not_change_earlier_hidden_states(graphs: CudaGraphs) -> None:
    first, second = packed([5], 1), packed([5], 2)
    graph = graphs.find(first)
    assert graph is not None
    assert graph is graphs.find(second)
    hidden = graph.run(first)
    kept = hidden.clone()
    graph.run(second)
    torch.testing.assert_close(hidden, kept, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("lengths", "bucket"),
    [([5], 8), ([1] * 4, 8), ([9], 16), ([1] * 5, 32), ([1] * 17, 128), ([100], 128), ([253], 256), ([4] * 64, 256)],
)
def test_a_batch_has_the_smallest_graph_that_it_fits(graphs: CudaGraphs, lengths: list[int], bucket: int) -> None:
    graph = graphs.find(packed(lengths))
    assert graph is not None
    assert len(graph.inputs.ids) == bucket


@pytest.mark.parametrize("lengths", [[257], [1] * 65, [200, 57], [256]])
def test_a_batch_that_fits_none_has_no_graph(graphs: CudaGraphs, lengths: list[int]) -> None:
    assert graphs.find(packed(lengths)) is None


def test_merged_prefixes_have_no_graph(graphs: CudaGraphs) -> None:
    tokens = packed([5])
    merged = replace(tokens, layout=replace(tokens.layout, row_of_token=torch.arange(5)))
    assert graphs.find(merged) is None


def test_no_sequence_of_a_capture_is_longer_than_the_model_takes(transformer: Transformer, kernel: None) -> None:
    longest: list[int] = []

    def watched(tokens: PackedTokens) -> Tensor:
        longest.append(int(tokens.positions.max()) + 1)
        return transformer(tokens)

    graphs = capture_on_cpu(watched, sequence_tokens_max=20)
    assert len(graphs)
    assert max(longest) == 20
    tokens = packed([20] * 4)
    graph = graphs.find(tokens)
    assert graph is not None
    torch.testing.assert_close(graph.run(tokens), transformer(tokens), atol=1e-5, rtol=1e-5)


def test_model_that_reads_lengths_on_the_host_has_no_graphs(
    transformer: Transformer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Attention by group reads them."""
    monkeypatch.setattr(transformer_module, "attend", attend)
    with caplog.at_level(logging.WARNING):
        assert not len(capture_on_cpu(transformer))
    [record] = caplog.records
    assert "no CUDA graphs for this model" in record.getMessage()


def test_graph_that_computes_something_else_is_not_used(
    transformer: Transformer, kernel: None, caplog: pytest.LogCaptureFixture
) -> None:
    def capture_once(function: Function) -> tuple[Tensor, Callable[[], None]]:
        return function(), lambda: None

    with caplog.at_level(logging.WARNING):
        assert not len(capture_on_cpu(transformer, capture_once))
    [record] = caplog.records
    assert "the replay differs from the computation" in record.getMessage()


def test_model_that_cannot_be_captured_has_no_graphs(
    transformer: Transformer, kernel: None, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(function: Function) -> tuple[Tensor, Callable[[], None]]:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nSearch for it")

    with caplog.at_level(logging.WARNING):
        assert not len(capture_on_cpu(transformer, refuse))
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "RuntimeError: CUDA error: operation not permitted when stream is capturing"
    ]


@pytest.mark.parametrize(("tokens", "sequences", "length_max"), [(8, 4, 512), (256, 64, 512), (64, 4, 20)])
def test_a_bucket_is_filled_by_one_long_sequence_and_short_ones(tokens: int, sequences: int, length_max: int) -> None:
    lengths = make_lengths(tokens, sequences, length_max)
    assert (len(lengths), sum(lengths)) == (sequences, tokens)
    assert max(lengths) == min(length_max, tokens - sequences + 1)
    assert make_batch(lengths).tokens == tokens
