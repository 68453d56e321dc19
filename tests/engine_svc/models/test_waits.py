"""No forward pass waits for the device before its end, and each copies once to it and once from it. Every architecture
runs on a fake GPU; the same pass on the CPU gives the expected shapes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.lora import use_adapters
from engine_svc.models.model import Model
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.sentence_modules import Pooling
from tests.engine_svc.models.cases import OUTPUTS, Case
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.fake_gpu import CUDA, WaitError, fake_gpu
from tests.engine_svc.models.heads.test_m3 import MIXES, sequences
from tests.engine_svc.models.packed import random_batch
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed, sequences_of
from tests.small_models.m3 import write_m3

Shapes = dict[Output, tuple[int, ...]]


def find_shapes(results: Mapping[Output, Rows]) -> Shapes:
    """The shapes of all outputs but sparse vectors, whose entries depend on the numbers."""
    return {output: rows.values.shape for output, rows in results.items() if rows.indices is None}


def shapes_on_gpu(
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: Checkpoint,
    batch: PackedBatch,
    adapter: str = "",
    quantization: str = "no_quant",
) -> Shapes:
    """Runs a pass in bfloat16; fails where it waits, or copies more than once."""
    with fake_gpu(monkeypatch) as gpu:
        model = Model.load(checkpoint, dtype=torch.bfloat16, device=CUDA, adapter=adapter, quantization=quantization)
        gpu.uploads.clear()
        gpu.downloads.clear()
        share_prefixes = model.transformer.is_causal and not model.tasks
        tokens = PackedTokens.of(
            batch, device=CUDA, dtype=torch.bfloat16, share_prefixes=share_prefixes, tasks=model.tasks
        )
        with use_adapters(tokens.adapter_rows):
            hidden = model.transformer(tokens)
        outputs = model.head(tokens.gather_tokens(hidden), tokens, batch)
        assert (outputs.flat.device, outputs.flat.dtype, outputs.flat.ndim) == (CUDA, torch.float32, 1)
        outputs.flat.cpu()
        assert (len(gpu.uploads), len(gpu.downloads)) == (1, 1), (gpu.uploads, gpu.downloads)
        size = outputs.flat.numel()
    return find_shapes(outputs.split(np.ones(size, np.float32)))


def check(monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint, batch: PackedBatch, adapter: str = "") -> None:
    expected = find_shapes(TorchBackend(checkpoint, device="cpu", adapter=adapter).run(batch))
    assert shapes_on_gpu(monkeypatch, checkpoint, batch, adapter) == expected


def batch_for(checkpoint: Checkpoint, output: Output, *, with_types: bool = False) -> PackedBatch:
    lengths = [1, 3, 3, 8, 17]
    return random_batch(lengths, with_types=with_types, output=output, vocabulary_size=checkpoint.vocabulary_size)


def with_options(batch: PackedBatch) -> PackedBatch:
    """Sequences for an embedder, with all options and both outputs."""
    return packed(
        [
            replace(
                sequence,
                prompt_tokens=index % 2,
                dimensions=4 * (index % 3),
                skip_normalization=index % 2 == 1,
                output=(Output.VECTOR, Output.TOKEN_VECTORS)[index % 2],
            )
            for index, sequence in enumerate(sequences_of(batch))
        ]
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_no_architecture_waits(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case.write(tmp_path)
    checkpoint = Checkpoint.read(tmp_path)
    batch = batch_for(checkpoint, OUTPUTS[case.kind], with_types=case.has_types)
    check(monkeypatch, checkpoint, batch, case.adapter)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("decoder")
    next(case for case in CASES if case.id.startswith("qwen3 embedder")).write(folder)
    return Checkpoint.read(folder)


@pytest.mark.parametrize("quantization", ["fp8", "fp4"])
def test_no_quantized_linear_waits(quantization: str, embedder: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_for(embedder, Output.VECTOR)
    expected = shapes_on_gpu(monkeypatch, embedder, batch)
    assert shapes_on_gpu(monkeypatch, embedder, batch, quantization=quantization) == expected


@pytest.mark.parametrize("mode", Pooling)
def test_no_pooling_waits(mode: Pooling, embedder: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = replace(embedder, pooling=(mode,))
    check(monkeypatch, checkpoint, batch_for(checkpoint, Output.VECTOR))
    check(monkeypatch, checkpoint, with_options(batch_for(checkpoint, Output.VECTOR)))


def test_shared_prefixes_do_not_wait(embedder: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = np.arange(40, dtype="<u4").tobytes()
    batch = batch_for(embedder, Output.VECTOR)
    sharing = packed([TokenSequence(shared + sequence.token_ids) for sequence in sequences_of(batch)])
    check(monkeypatch, embedder, sharing)


@pytest.mark.parametrize("mixes", [MIXES[:1], MIXES])
def test_mixed_outputs_of_m3_do_not_wait(
    mixes: Sequence[tuple[Output, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_m3(tmp_path)
    batch = packed(sequences(24, tuple(mixes)))
    with_skips = [
        replace(sequence, skip_normalization=index % 2 == 0) for index, sequence in enumerate(sequences_of(batch))
    ]
    shapes = shapes_on_gpu(monkeypatch, Checkpoint.read(tmp_path), batch)
    assert set(shapes) == {*batch.output_indices} - {Output.SPARSE_VECTOR}
    assert shapes_on_gpu(monkeypatch, Checkpoint.read(tmp_path), packed(with_skips)) == shapes


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda counts: counts[0].item(),
    "tolist": lambda counts: counts.tolist(),
    "truth": lambda counts: bool((counts > 3).any()),
    "bincount": lambda counts: counts.bincount(minlength=3),
    "repeat_interleave without its size": lambda counts: torch.repeat_interleave(counts, counts),
    "index by a mask": lambda counts: counts[counts > 3],
    "nonzero": lambda counts: counts.nonzero(),
    "unique": torch.unique,
}


@pytest.mark.parametrize("name", WAITS)
def test_what_waits_is_an_error_on_the_fake_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = (WaitError, DataDependentOutputException, DynamicOutputShapeException)
    with fake_gpu(monkeypatch), pytest.raises(errors):
        WAITS[name](torch.zeros(5, dtype=torch.int32, device=CUDA))


def test_small_copies_are_counted_on_the_fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu(monkeypatch) as gpu:
        torch.tensor([1, 2], device=CUDA)
        torch.zeros(3).to(CUDA, non_blocking=True)
        torch.zeros(3, device=CUDA).cpu()
    assert (len(gpu.uploads), len(gpu.downloads)) == (2, 1)
