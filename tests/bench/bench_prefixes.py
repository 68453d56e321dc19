"""The gain of computing a shared prefix once: a decoder reranks documents that follow the same prompt and query.

    python -m tests.bench.bench_prefixes --documents 32 --prefixes 0,64,512

The model has the shape of Qwen3-Reranker-0.6B except for its depth, and random weights, which do not affect the speed.
Both ways run in turns, in one process, on the same token ids. Needs transformers.
"""

import argparse
import dataclasses
import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForSequenceClassification

from engine_svc.backends.torch_backend import DTYPES, TorchBackend
from engine_svc.sequences import Output
from heddle.checkpoint import Checkpoint
from tests.bench.measurement import PrefixFigure
from tests.bench.race import processor, raced
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed, run_each

VOCABULARY_SIZE = 1000

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "num_labels": 1,
    "pad_token_id": 0,
}


def main() -> None:
    options = parsed_options()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = written(Path(folder), options.layers)
        load = partial(TorchBackend, checkpoint, dtype=options.dtype, threads=options.threads, device=options.device)
        once, each_time = load(), load(share_prefixes=False)
    if not options.json:
        print(f"{options.layers} layers, {once.data_type}, {torch.get_num_threads()} threads, {processor()}\n")
        print("| prefix | document | tokens | ms, prefix once | ms, each time | factor |\n|---|---|---|---|---|---|")
    for prefix in map(int, options.prefixes.split(",")):
        batch = packed(sequences(options.documents, prefix, options.tokens))
        np.testing.assert_allclose(
            np.stack(run_each(once, batch)),
            np.stack(run_each(each_time, batch)),
            atol=0.02 if "16" in once.data_type else 1e-4,
        )
        merged, plain = raced([partial(once.run, batch), partial(each_time.run, batch)], options.seconds)
        if options.json:
            print(json.dumps(dataclasses.asdict(PrefixFigure(prefix, merged, plain))), flush=True)
            continue
        figures = f"{1000 * merged:.0f} | {1000 * plain:.0f} | {plain / merged:.2f}"
        print(f"| {prefix} | {options.tokens} | {batch.tokens} | {figures} |", flush=True)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="auto", choices=["auto", *DTYPES])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="of each document")
    parser.add_argument("--prefixes", default="0,64,512", help="tokens of the shared prefix")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each prefix, both together")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each prefix")
    return parser.parse_args()


def written(folder: Path, layers: int) -> Checkpoint:
    torch.manual_seed(0)
    model_class: type[PreTrainedModel] = Qwen3ForSequenceClassification
    model_class(Qwen3Config(**SHAPE, num_hidden_layers=layers)).save_pretrained(folder)
    return Checkpoint.read(folder)


def sequences(documents: int, prefix: int, tokens: int) -> list[TokenSequence]:
    rng = np.random.default_rng(0)
    shared = rng.integers(0, VOCABULARY_SIZE, prefix, np.uint32).tobytes()
    own = (rng.integers(0, VOCABULARY_SIZE, tokens, np.uint32).tobytes() for _ in range(documents))
    return [TokenSequence(shared + ids, output=Output.LOGITS) for ids in own]


if __name__ == "__main__":
    main()
