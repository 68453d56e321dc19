"""The engine's forward pass alone, which takes turns with the servers to show what the services cost.

`python -m tests.bench.bare` reads lines of JSON, SEQUENCES TOKENS SECONDS each, and writes the figures.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np

from engine_svc.backends import Backend
from engine_svc.backends.loading import load_backend
from engine_svc.device import find_device
from engine_svc.scheduler import Scheduler
from engine_svc.sequences import PackedBatch, Sequences
from engine_svc.settings import EngineSettings
from engine_svc.startup import choose_concurrency, make_limits
from engine_svc.submission import Submission
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import PACKAGED_NAME, locate

SEED = 0


@dataclass(frozen=True)
class BarePasses:
    sequences: int  # in all
    taken_s: list[float]  # by each pass
    seconds: float  # that they took together


class BareEngine:
    """The process. It computes only when asked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bare"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait_until_ready(self) -> None:
        self.passes(1, 8, 0.1)

    def passes(self, waiting: int, tokens: int, seconds: float) -> BarePasses:
        """Measures passes while this many sequences wait, in batches that the scheduler makes."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps([waiting, tokens, seconds]), file=self._process.stdin, flush=True)
        return BarePasses(**json.loads(self._process.stdout.readline()))

    def stop(self) -> None:
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait()


class Loop:
    """Keeps a number of sequences waiting: each is queued again once it has been computed."""

    def __init__(self, backend: Backend, scheduler: Scheduler, sequences: list[Sequences]) -> None:
        self._backend = backend
        self._scheduler = scheduler
        self._put(sequences)

    def run(self, seconds: float, threads: int) -> BarePasses:
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as workers:
            worker = [workers.submit(self._passes, began + seconds) for _ in range(threads)]
            passes = [one for each in worker for one in each.result()]
        took = time.perf_counter() - began
        return BarePasses(sum(sequences for sequences, _ in passes), [taken_s for _, taken_s in passes], took)

    def _passes(self, end: float) -> list[tuple[int, float]]:
        """Returns sequences and seconds of each pass."""
        passes: list[tuple[int, float]] = []
        while not passes or time.perf_counter() < end:
            batch = self._scheduler.take(end - time.perf_counter())
            if batch is None:
                break
            began = time.perf_counter()
            self._backend.run(PackedBatch.of([part.sequences for part in batch.parts]), batch.cores)
            passes.append((batch.items, time.perf_counter() - began))
            self._scheduler.give_back(batch)
            self._put(part.sequences for part in batch.parts)
        return passes

    def _put(self, sequences: Iterable[Sequences]) -> None:
        self._scheduler.submit(Submission(sequence, str(number), print) for number, sequence in enumerate(sequences))


def main() -> None:
    settings = EngineSettings()
    device = find_device(settings.device)
    passes, cores = choose_concurrency(settings, device)
    backend = load_backend(settings, Checkpoint.read(locate(PACKAGED_NAME)))
    rng = np.random.default_rng(SEED)
    for line in sys.stdin:
        waiting, tokens, seconds = json.loads(line)
        sequences = [
            Sequences.of(row, np.array([tokens]))
            for row in rng.integers(1000, 30_000, (waiting, tokens), dtype=np.uint32)
        ]
        loop = Loop(backend, Scheduler(make_limits(settings, device), passes=passes, cores=cores), sequences)
        loop.run(0, passes)
        print(json.dumps(asdict(loop.run(seconds, passes))), flush=True)


if __name__ == "__main__":
    main()
