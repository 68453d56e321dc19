"""CUDA graphs of a model's transformer, for batches of few tokens: launching their kernels takes longer than computing.
`TorchBackend` captures the graphs while it loads, and replays one whenever a batch fits.

A graph runs on static inputs, with a fixed number of rows and sequences. If a batch has fewer, the spare rows belong to
no sequence, and the spare sequences are empty. Neither changes the hidden states of the others.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from engine_svc.backends.cuda_passes import first_line
from engine_svc.models.layout import EqualLengths, Layout
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.sequences import PackedBatch, Sequences

BUCKETS_OF_TOKENS = (8, 16, 32, 64, 128, 256)
# An empty sequence costs attention a little time in each layer, so batches of few sequences have graphs of their own.
BUCKETS_OF_SEQUENCES = (4, 16, 64)

# The largest distance of replayed hidden states from computed ones, divided by the distance of the computed ones from
# their mean. Rounding in 16 bit stays far below this; a graph that ignores its inputs is far above.
DIFFERENCE_MAX = 0.5

Function = Callable[[], Tensor]
# Captures a function. Returns its output, and a replay that reads the same inputs again and overwrites that output.
Capture = Callable[[Function], tuple[Tensor, Callable[[], None]]]

log = logging.getLogger(__name__)


class CapturedLayout(Layout):
    @cached_property
    def groups(self) -> tuple[EqualLengths, ...]:
        raise RuntimeError("attention depends on the lengths of the sequences")


@dataclass(frozen=True, slots=True)
class Graph:
    inputs: PackedTokens
    hidden: Tensor
    replay: Callable[[], None]

    def fits(self, tokens: PackedTokens) -> bool:
        """Kernels are launched for the longest sequence, so none may be longer than that of the capture."""
        own = self.inputs
        is_short = tokens.layout.max_length <= own.layout.max_length
        return is_short and count_rows(tokens) <= count_rows(own) and count_sequences(tokens) <= count_sequences(own)

    def run(self, tokens: PackedTokens) -> Tensor:
        """The hidden states [rows, hidden] of the transformer, in a copy that the next run does not change."""
        rows, stop = count_rows(tokens), count_sequences(tokens) + 1
        own, given = self.inputs, tokens.layout.cu_seqlens
        own.ids[:rows].copy_(tokens.ids)
        own.type_ids[:rows].copy_(tokens.type_ids)
        own.positions[:rows].copy_(tokens.positions)
        own.layout.cu_seqlens[:stop].copy_(given)
        own.layout.cu_seqlens[stop:].copy_(given[-1:].expand(len(own.layout.cu_seqlens) - stop))
        self.replay()
        return self.hidden[:rows].clone()


class CudaGraphs:
    def __init__(self, graphs: Iterable[Graph] = ()) -> None:
        self._graphs = sorted(graphs, key=lambda graph: (count_rows(graph.inputs), count_sequences(graph.inputs)))

    def __len__(self) -> int:
        return len(self._graphs)

    def find(self, tokens: PackedTokens) -> Graph | None:
        """The smallest graph that the batch fits. None for a large batch, and for shared prefixes or adapters."""
        if tokens.layout.row_of_token is not None or tokens.adapter_rows is not None:
            return None
        return next((graph for graph in self._graphs if graph.fits(tokens)), None)


def capture_graphs(
    transformer: Callable[[PackedTokens], Tensor],
    capture: Capture,
    *,
    device: torch.device,
    dtype: torch.dtype,
    sequence_tokens_max: int,
) -> CudaGraphs:
    """Returns no graphs, and logs a warning, if the model does what a graph cannot record, such as reading the lengths
    of the sequences on the host."""
    packed = partial(PackedTokens.of, device=device, dtype=dtype)
    graphs: list[Graph] = []
    try:
        # The largest first: the smaller ones then reuse its memory.
        for tokens, sequences in reversed(list(product(BUCKETS_OF_TOKENS, BUCKETS_OF_SEQUENCES))):
            if 2 * sequences > tokens:
                continue
            inputs = hide_groups(packed(make_batch(make_lengths(tokens, sequences, sequence_tokens_max))))
            graphs.append(Graph(inputs, *capture(partial(transformer, inputs))))
            others = make_lengths(tokens - 1, sequences - 1, min(tokens // sequences, sequence_tokens_max))
            check_replay(graphs[-1], transformer, packed(make_batch(others)))
    except Exception as error:  # noqa: BLE001 - without graphs the model still works
        log.warning("no CUDA graphs for this model: %s: %s", type(error).__name__, first_line(error))
        return CudaGraphs()
    return CudaGraphs(graphs)


def check_replay(graph: Graph, transformer: Callable[[PackedTokens], Tensor], tokens: PackedTokens) -> None:
    """Raises ValueError if the graph and the transformer compute different hidden states."""
    count = int(tokens.layout.cu_seqlens[-1])  # later rows belong to no sequence
    expected, replayed = transformer(tokens)[:count].float(), graph.run(tokens)[:count].float()
    difference = float((replayed - expected).norm() / (expected - expected.mean(0)).norm())
    if not difference <= DIFFERENCE_MAX:  # so that NaN is an error too
        raise ValueError(f"the replay differs from the computation by {difference:.3g}")


def hide_groups(tokens: PackedTokens) -> PackedTokens:
    """Makes attention fail if it reads the groups: such a graph would be right only for the captured sequences."""
    layout = tokens.layout
    return replace(tokens, layout=CapturedLayout.of(layout.lengths, layout.cu_seqlens))


def count_rows(tokens: PackedTokens) -> int:
    return len(tokens.ids)


def count_sequences(tokens: PackedTokens) -> int:
    return len(tokens.layout.cu_seqlens) - 1


def make_batch(lengths: Sequence[int]) -> PackedBatch:
    """Sequences of these lengths, of ids below 8, which every vocabulary has."""
    ids = [(np.arange(length, dtype=np.uint32) + index) % 8 for index, length in enumerate(lengths)]
    return PackedBatch.of([Sequences.of(np.concatenate(ids), np.array(lengths))])


def make_lengths(tokens: int, sequences: int, length_max: int) -> list[int]:
    """Lengths of so many sequences, ascending: the last are as long as possible, the others 1. They add up to `tokens`,
    or to less if `length_max` does not allow it."""
    lengths = [1] * sequences
    for index in reversed(range(sequences)):
        lengths[index] += min(length_max - 1, tokens - sum(lengths))
    return lengths


def capture_on(stream: torch.cuda.Stream) -> Capture:
    """All graphs share one pool of memory. This is safe because they are only replayed on this stream."""
    pool = torch.cuda.graph_pool_handle()

    def capture(function: Function) -> tuple[Tensor, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        # torch.cuda.graph leaves its stream the current one if the capture fails.
        with torch.cuda.stream(stream):
            function()  # compiles, tunes and allocates what a capture must not
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                output = function()
        return output, graph.replay

    return capture
