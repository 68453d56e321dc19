"""Tokens per second of the torch backend by batch shape, beside the matrix products' ceiling and other ways to run it.

    python -m tests.bench.bench_engine --dtypes bfloat16 --shapes 128x8,16x128,mix --contenders eager,compile

A shape is SEQUENCESxTOKENS; `mix` is 32 sequences of log-normal length. All contenders run in turns on the same random
token ids, up to pooled and normalised vectors, which are compared. A figure is that of the median pass. The other
contenders pad to the longest sequence, and padding does not count as tokens. Needs transformers.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from engine_svc.backends.torch_backend import DTYPES, TorchBackend
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from tests.bench.ceiling import Products, has_prepacked
from tests.bench.contenders import OpenVINO, PaddedCompiled, PaddedEager
from tests.bench.environments import NotInstalledError
from tests.bench.measurement import CEILING, OURS, EngineFigure
from tests.bench.race import processor, raced
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed

SHAPES = "1x8,128x8,32x32,16x128,16x256,8x512,mix"
COSINE_MIN = 0.99


class Contender(Protocol):
    def run(self, batch: PackedBatch, /) -> object: ...


def main() -> None:
    options = parsed_options()
    checkpoint = Checkpoint.read(locate(options.model))
    if not options.json:
        print(f"{checkpoint.folder.name}, {options.threads} threads, {processor()}, torch {torch.__version__}\n")
        print("| dtype | shape | contender | tokens/s |\n|---|---|---|---|")
    for dtype in options.dtypes.split(","):
        for figure in figures(options, checkpoint, dtype):
            row = f"| {figure.dtype} | {figure.shape} | {figure.contender} | {figure.tokens_per_second:,.0f} |"
            print(json.dumps(dataclasses.asdict(figure)) if options.json else row, flush=True)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=PACKAGED_NAME)
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--contenders", default="eager,compile", help="of eager, compile, openvino")
    parser.add_argument("--peers", type=Path, help="where OpenVINO is installed")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each shape and number format, all together")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each figure")
    return parser.parse_args()


def figures(options: argparse.Namespace, checkpoint: Checkpoint, dtype: str) -> Iterator[EngineFigure]:
    ours = TorchBackend(checkpoint, dtype=dtype, threads=options.threads, device=options.device)
    contenders: dict[str, Contender] = {OURS: ours, **dict(made_contenders(options, checkpoint, dtype))}
    for shape in options.shapes.split(","):
        batch = packed(sequences_of(shape, checkpoint.vocabulary_size))
        check_agreement(contenders, batch)
        ceilings = products(checkpoint, batch.tokens, dtype) if options.device == "cpu" else []
        passes: list[Callable[[], object]] = [partial(one.run, batch) for one in contenders.values()]
        medians = raced([*passes, *(ceiling.run for ceiling in ceilings)], options.seconds)
        for name, seconds in zip(contenders, medians, strict=False):
            yield EngineFigure(dtype, shape, name, batch.tokens / seconds)
        if ceilings:
            yield EngineFigure(dtype, shape, CEILING, batch.tokens / min(medians[len(contenders) :]))
    for contender in contenders.values():
        if isinstance(contender, OpenVINO):
            contender.close()


def made_contenders(options: argparse.Namespace, checkpoint: Checkpoint, dtype: str) -> Iterator[tuple[str, Contender]]:
    names = options.contenders.split(",")
    if "eager" in names:
        yield "torch eager", PaddedEager(checkpoint, dtype, options.device)
    if "compile" in names:
        yield "torch.compile", PaddedCompiled(checkpoint, dtype)
    if "openvino" in names:
        try:
            yield "OpenVINO", OpenVINO(checkpoint, dtype, options.peers)
        except NotInstalledError as error:
            print(f"skipped: {error}", file=sys.stderr)


def products(checkpoint: Checkpoint, tokens: int, dtype: str) -> list[Products]:
    forms = (False, True) if has_prepacked() else (False,)
    return [Products(checkpoint.config, tokens, DTYPES[dtype], prepacked=form) for form in forms]


def first_vector(results: object) -> np.ndarray[Any, Any]:
    if isinstance(results, Mapping):
        first: np.ndarray[Any, Any] = results[Output.VECTOR].values[0]
        return first
    vectors: np.ndarray[Any, Any] = np.atleast_2d(np.asarray(results))
    return vectors[0]  # type: ignore[no-any-return]


def check_agreement(contenders: dict[str, Contender], batch: PackedBatch) -> None:
    """Compares the vectors of the first sequence, because a contender that computes something else is of no
    interest."""
    first = {name: first_vector(one.run(batch)) for name, one in contenders.items()}
    for name, vector in first.items():
        cosine = float(vector @ first[OURS])
        if cosine < COSINE_MIN:
            raise AssertionError(f"{name} and {OURS} differ: cosine {cosine:.4f}")


def sequences_of(shape: str, vocabulary_size: int) -> list[TokenSequence]:
    rng = np.random.default_rng(0)
    if shape == "mix":
        lengths = np.clip(rng.lognormal(3.5, 0.9, 32), 3, 512).astype(int)
    else:
        sequences, tokens = map(int, shape.split("x"))
        lengths = np.full(sequences, tokens)
    return [TokenSequence(rng.integers(1000, vocabulary_size, n, dtype=np.uint32).tobytes()) for n in lengths]


if __name__ == "__main__":
    main()
