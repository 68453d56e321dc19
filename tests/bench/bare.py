"""The engine's forward pass with nothing around it, which takes turns with the servers: what is lost on the way to it?

`python -m tests.bench.bare` reads lines of JSON, SEQUENCES TOKENS SECONDS each, and writes the seconds of every pass.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass

SEED = 0


@dataclass(frozen=True)
class BarePasses:
    sequences: int  # of each pass
    tokens: int  # of each sequence
    taken_s: list[float]


class BareEngine:
    """The process. It computes only while it is asked to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bare"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait_until_ready(self) -> None:
        self.passes(1, 8, 0.1)

    def passes(self, waiting: int, tokens: int, seconds: float) -> BarePasses:
        """Batches as the scheduler would make them of so many sequences that wait."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps([waiting, tokens, seconds]), file=self._process.stdin, flush=True)
        return BarePasses(**json.loads(self._process.stdout.readline()))

    def stop(self) -> None:
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait()


def main() -> None:
    import os

    import numpy as np

    from engine_svc.backends.loading import load_backend
    from engine_svc.batch import PackedBatch
    from engine_svc.batch import Sequence as TokenSequence
    from engine_svc.device import batch_tokens_default
    from engine_svc.settings import EngineSettings
    from heddle.checkpoint import Checkpoint
    from heddle.model_source import PACKAGED_NAME, locate

    backend = load_backend(EngineSettings(threads=len(os.sched_getaffinity(0))), Checkpoint.read(locate(PACKAGED_NAME)))
    rng = np.random.default_rng(SEED)
    for line in sys.stdin:
        waiting, tokens, seconds = json.loads(line)
        sequences = max(1, min(waiting, batch_tokens_default() // tokens))
        ids = rng.integers(1000, 30_000, (sequences, tokens), dtype=np.uint32)
        batch = PackedBatch.of([TokenSequence(row.tobytes()) for row in ids])
        backend.run(batch)
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while not taken or time.perf_counter() < end:
            start = time.perf_counter()
            backend.run(batch)
            taken.append(time.perf_counter() - start)
        print(json.dumps({"sequences": sequences, "tokens": tokens, "taken_s": taken}), flush=True)


if __name__ == "__main__":
    main()
