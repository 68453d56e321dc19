"""Texts per second of the tokenizer service, without the transport, by text length and batch, beside the bare library.

    python tests/bench/bench_tokenizer.py --model sentence-transformers/all-MiniLM-L6-v2 --seconds 1

Three measures run in turns on the same texts; each figure is that of the median pass. `library` is the call of the
`tokenizers` library alone, `encode` is Tokenizer.encode to packed ids, `served` is one request of the whole batch
through the Encoder on a running event loop. CPU time includes all threads.
"""

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable

import tokenizers

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from tests.tokenizer_svc.encoding import encoded
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.text.tokenization import Tokenizer

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dog",
    "embedding",
    "international",
    "retrieval",
    "tokenization",
]
LENGTHS = {"5 words": 5, "250 tokens": 200}
BATCHES = (1, 8, 64, 256)

Call = Callable[[], Awaitable[object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=PACKAGED_NAME)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row")
    options = parser.parse_args()
    asyncio.run(bench(Checkpoint.read(locate(options.model)), options.seconds))


async def bench(checkpoint: Checkpoint, seconds: float) -> None:
    tokenizer = Tokenizer.load(checkpoint)
    library = tokenizers.Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
    library.no_truncation()
    library.no_padding()
    encoder = Encoder(tokenizer)
    print(f"{checkpoint.name}, {os.cpu_count()} cores, tokenizers {tokenizers.__version__}; µs of CPU time per text\n")
    print(
        "| text | tokens | batch | library µs | encode µs | served µs | served texts/s |\n|---|---|---|---|---|---|---|"
    )
    for name, words in LENGTHS.items():
        for batch in BATCHES:
            texts = texts_of(words, batch)
            tokens = statistics.mean(len(encoding) for encoding in library.encode_batch_fast(texts))
            measured = await raced(calls_of(library, tokenizer, encoder, texts), seconds)
            costs = " | ".join(f"{cpu / batch * 1e6:.1f}" for _, cpu in measured)
            print(f"| {name} | {tokens:.0f} | {batch} | {costs} | {batch / measured[-1][0]:,.0f} |", flush=True)
    await encoder.close()


def texts_of(words: int, batch: int) -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=words)) for _ in range(batch)]


def calls_of(library: tokenizers.Tokenizer, tokenizer: Tokenizer, encoder: Encoder, texts: list[str]) -> list[Call]:
    options = tokenizer.options()
    work = [(texts, options)]

    async def bare() -> object:
        return library.encode_batch_fast(texts)

    async def encode() -> object:
        return tokenizer.encode(work)

    async def served() -> object:
        return await encoded(encoder, texts, options)

    return [bare, encode, served]


async def raced(calls: list[Call], seconds: float) -> list[tuple[float, float]]:
    """Returns wall and CPU seconds of the median pass of each call."""
    passes: list[list[tuple[float, float]]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not passes[0]:
        for call, spent in zip(calls, passes, strict=True):
            spent.append(await timed(call))
    return [tuple(map(statistics.median, zip(*spent, strict=True))) for spent in passes]


async def timed(call: Call) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    await call()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
