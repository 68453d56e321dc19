"""Tokens per second of the torch backend by batch shape, beside a plain forward of transformers with padding.

    python -m tests.bench.bench_engine --dtype bfloat16 --threads 2 --shapes 128x8,16x128,mix

A shape is SEQUENCESxTOKENS; `mix` is 100 sequences of log-normal length. Both run in turns, in one process, on the same
random token ids, to pooled and normalised vectors; the figure is that of the median pass. Needs transformers.
"""

import argparse
import os
from functools import partial

import numpy as np
import torch
from transformers import AutoModel

from engine_svc.backends.torch_backend import DTYPES, TorchBackend
from engine_svc.batch import PackedBatch
from engine_svc.batch import Sequence as TokenSequence
from heddle.checkpoint import Checkpoint
from heddle.model_source import PACKAGED_NAME, locate
from tests.bench.race import processor, raced

SHAPES = "1x8,128x8,32x32,16x128,16x256,8x512,mix"


def main() -> None:
    options = parsed_options()
    checkpoint = Checkpoint.read(locate(options.model))
    backend = TorchBackend(checkpoint, dtype=options.dtype, threads=options.threads, device=options.device)
    eager = PaddedEager(checkpoint, backend.data_type, options.device)
    print(f"{checkpoint.folder.name}, {backend.data_type}, {torch.get_num_threads()} threads, ", end="")
    print(f"{processor()}, torch {torch.__version__}\n")
    print("| shape | tokens | heddle tokens/s | transformers tokens/s | ratio |\n|---|---|---|---|---|")
    for shape in options.shapes.split(","):
        batch = PackedBatch.of(sequences_of(shape, checkpoint.vocabulary_size))
        ours, theirs = raced([partial(backend.run, batch), partial(eager.run, batch)], options.seconds)
        rates = f"{batch.tokens / ours:,.0f} | {batch.tokens / theirs:,.0f} | {theirs / ours:.2f}"
        print(f"| {shape} | {batch.tokens} | {rates} |", flush=True)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=PACKAGED_NAME)
    parser.add_argument("--dtype", default="auto", choices=["auto", *DTYPES])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each shape, both together")
    return parser.parse_args()


def sequences_of(shape: str, vocabulary_size: int) -> list[TokenSequence]:
    rng = np.random.default_rng(0)
    if shape == "mix":
        lengths = np.clip(rng.lognormal(3.5, 0.9, 100), 3, 512).astype(int)
    else:
        sequences, tokens = map(int, shape.split("x"))
        lengths = np.full(sequences, tokens)
    return [TokenSequence(rng.integers(1000, vocabulary_size, n, dtype=np.uint32).tobytes()) for n in lengths]


class PaddedEager:
    """What a server does that pads a batch to its longest sequence."""

    def __init__(self, checkpoint: Checkpoint, data_type: str, device: str) -> None:
        model = AutoModel.from_pretrained(checkpoint.folder, dtype=DTYPES[data_type], attn_implementation="sdpa")
        self._model, self._device = model.eval().to(device), device

    @torch.inference_mode()
    def run(self, batch: PackedBatch) -> np.ndarray:
        ids = torch.zeros(len(batch.sequences), batch.length_max, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(batch.sequences):
            ids[row, : sequence.tokens] = torch.from_numpy(np.frombuffer(sequence.token_ids, "<u4").astype(np.int64))
            mask[row, : sequence.tokens] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(mean, dim=1).cpu().numpy()


if __name__ == "__main__":
    main()
