"""Runs a checkpoint and its build on the same texts, and measures how much their outputs differ.

`heddle build` calls `compare` last, with texts that were not used for calibration. Each pass runs on one core, so the
result is the same on any number of cores.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from engine_svc.backends.loading import count_weight_bytes
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.build.report import Closeness, Report, Scores, Size, Speed
from engine_svc.build.sample_texts import Progress, TextBatch, make_batches
from engine_svc.build.side_by_side import run_side_by_side
from engine_svc.device import choose_data_type, find_device
from engine_svc.rows import Rows
from engine_svc.sequences import Output, Sequences
from heddle.activations import sigmoid, softmax
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.weight_files import find_weight_files

Floats = npt.NDArray[np.float32]

OUTPUTS: Mapping[ModelKind, Output] = {
    ModelKind.EMBEDDER: Output.VECTOR,
    ModelKind.MULTI_VECTOR_EMBEDDER: Output.TOKEN_VECTORS,
    ModelKind.SPARSE_EMBEDDER: Output.SPARSE_VECTOR,
    ModelKind.RERANKER: Output.LOGITS,
    ModelKind.CLASSIFIER: Output.LOGITS,
    ModelKind.TOKEN_CLASSIFIER: Output.TOKEN_LOGITS,
}
LOGITS = (Output.LOGITS, Output.TOKEN_LOGITS)

# Measured rounds. None but the first starts after SPEED_SECONDS.
SPEED_ROUNDS, SPEED_SECONDS = 5, 10.0


def compare(
    source: Checkpoint,
    built: Checkpoint,
    sequences: Sequences,
    texts: Sequence[str],
    *,
    quantization: str,
    device: str = "auto",
    dtype: str = "auto",
    cores: int = 0,
    measure_speed: bool = False,
    progress: Progress | None = None,
) -> Report:
    """`sequences` are the tokenized `texts`. A CPU runs one batch on each of `cores`; 0 means PyTorch's number of
    threads. One model is in memory at a time, or both while speed is measured. `progress` counts every text twice, once
    for each model. Raises CheckpointError and ConfigurationError as loading does."""
    output = OUTPUTS[source.kind]
    sequences = replace(sequences, options=replace(sequences.options, output=output))
    workers = (cores or torch.get_num_threads()) if find_device(device).kind == "cpu" else 1
    load = partial(TorchBackend, device=device, dtype=dtype)
    theirs, ours = (
        run_texts(load(checkpoint), sequences, source.vocabulary_size, workers, progress)
        for checkpoint in (source, built)
    )
    engine_batches = make_batches(sequences, find_device(device).batch_tokens)
    is_scored = output in LOGITS
    return Report(
        quantization=quantization,
        texts=len(texts),
        source=measure_size(source, dtype, device),
        built=measure_size(built, dtype, device),
        cosine=None if is_scored else compare_vectors(theirs, ours, texts),
        scores=compare_scores(source, theirs, ours, texts) if is_scored else None,
        speed=compare_speed([load(source), load(built)], engine_batches, workers) if measure_speed else None,
    )


def run_texts(
    backend: TorchBackend, sequences: Sequences, vocabulary_size: int, workers: int, progress: Progress | None
) -> Sequence[Floats]:
    """Returns one array for each text; sparse vectors are made dense. Closes the backend."""
    output = sequences.options.output
    results: dict[int, Floats] = {}

    def run(batch: TextBatch) -> None:
        rows = backend.run(batch.packed, 1)[output]
        for place, index in enumerate(batch.indices.tolist()):
            results[index] = to_array(rows.part(place, place + 1), vocabulary_size)
        if progress is not None:
            progress(len(batch.indices))

    try:
        run_side_by_side([run] * workers, make_batches(sequences))
    finally:
        backend.close()
    return [results[index] for index in range(len(sequences))]


def to_array(rows: Rows, vocabulary_size: int) -> Floats:
    if rows.indices is None:
        return rows.values
    dense = np.zeros(vocabulary_size, np.float32)
    dense[rows.indices] = rows.values
    return dense


def compare_vectors(theirs: Sequence[Floats], ours: Sequence[Floats], texts: Sequence[str]) -> Closeness:
    cosines = [cosine(one.ravel(), other.ravel()) for one, other in zip(theirs, ours, strict=True)]
    worst = int(np.argmin(cosines))
    return Closeness(float(np.mean(cosines)), cosines[worst], texts[worst])


def cosine(one: Floats, other: Floats) -> float:
    """Returns 1 for two zero vectors, which sparse models produce for texts without known words."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else float(not first.any() and not second.any())


def compare_scores(
    checkpoint: Checkpoint, theirs: Sequence[Floats], ours: Sequence[Floats], texts: Sequence[str]
) -> Scores:
    is_single = checkpoint.kind is ModelKind.RERANKER or len(checkpoint.labels) == 1
    activate = sigmoid if is_single or checkpoint.multi_label else softmax
    before, after = ([activate(logits).reshape(len(logits), -1) for logits in side] for side in (theirs, ours))
    differences = [np.abs(one - other) for one, other in zip(before, after, strict=True)]
    largest = [float(difference.max(initial=0.0)) for difference in differences]
    worst = int(np.argmax(largest))
    if is_single:
        # Logits, because many different ones round to the same score.
        firsts = [np.concatenate([logits.ravel()[:1] for logits in side]) for side in (theirs, ours)]
        agreement = rank_correlation(*firsts)
    else:
        same = [one.argmax(1) == other.argmax(1) for one, other in zip(before, after, strict=True)]
        agreement = float(np.concatenate(same).mean())
    mean = float(np.concatenate([difference.ravel() for difference in differences]).mean())
    return Scores(mean, largest[worst], texts[worst], agreement, is_ranking=is_single)


def rank_correlation(one: Floats, other: Floats) -> float:
    """Returns Spearman's coefficient, or 1 for fewer than two numbers."""
    if len(one) < 2:
        return 1.0
    return float(np.corrcoef(find_ranks(one), find_ranks(other))[0, 1])


def find_ranks(numbers: Floats) -> npt.NDArray[np.float64]:
    return np.argsort(np.argsort(numbers, kind="stable"), kind="stable").astype(np.float64)


def measure_size(checkpoint: Checkpoint, dtype: str, device: str) -> Size:
    data_type = choose_data_type(find_device(device), checkpoint) if dtype == "auto" else dtype
    files = sum(path.stat().st_size for path in find_weight_files(Path(checkpoint.folder)))
    return Size(files, count_weight_bytes(checkpoint, data_type))


def compare_speed(backends: Sequence[TorchBackend], batches: Sequence[TextBatch], workers: int) -> Speed:
    """Runs the backends in turns, with batches and passes as in an engine. Takes the best of several rounds, after a
    warm-up round. Closes the backends."""
    best = [float("inf")] * 2
    started = time.perf_counter()
    for round_ in range(1 + SPEED_ROUNDS):
        if round_ > 1 and time.perf_counter() - started > SPEED_SECONDS:
            break
        for place, backend in enumerate(backends):
            start = time.perf_counter()
            run_side_by_side([partial(run_on_one_core, backend)] * workers, batches)
            if round_:
                best[place] = min(best[place], time.perf_counter() - start)
    for backend in backends:
        backend.close()
    tokens = sum(batch.packed.tokens for batch in batches)
    return Speed(*(tokens / seconds for seconds in best))


def run_on_one_core(backend: TorchBackend, batch: TextBatch) -> None:
    backend.run(batch.packed, 1)
