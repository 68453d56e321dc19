"""A backend without a model: deterministic arrays after a modelled time. For tests, load tests of the other services,
and capacity planning. It sleeps for that time, so that the processes being measured keep the cores."""

import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from engine_svc.rows import Rows, ranges
from engine_svc.sequences import Output, PackedBatch, mix_bits

Hashes = npt.NDArray[np.uint64]

# About as many words as a short text and its synonyms.
SPARSE_WORDS = 24


@dataclass(frozen=True, slots=True)
class SimulatedBackend:
    """A batch of T tokens takes `fixed_us` + `per_token_ns` * T. A result depends only on its sequence."""

    outputs: frozenset[Output] = frozenset({Output.VECTOR, Output.TOKEN_VECTORS})
    dimension: int = 384  # of a vector; for logits, the number of labels
    sparse_dimension: int = 0  # of a sparse vector; 0 = `dimension`
    fixed_us: int = 2_000
    per_token_ns: int = 1_000
    data_type: str = "float32"

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        ready_at = time.monotonic() + self.fixed_us / 1e6 + self.per_token_ns * batch.tokens / 1e9
        hashes = hash_contents(batch)
        results = {
            output: self._rows(batch, output, indices, hashes) for output, indices in batch.output_indices.items()
        }
        left_s = ready_at - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)
        return results

    def close(self) -> None:
        pass

    def _rows(self, batch: PackedBatch, output: Output, indices: npt.NDArray[np.intp], hashes: Hashes) -> Rows:
        if output not in self.outputs:
            raise ValueError(f"not simulated: {output}")
        hashes = hashes[indices]
        match output:
            case Output.VECTOR:
                return Rows(self._vectors(batch, indices, hashes))
            case Output.LOGITS:
                return Rows(noise(hashes, self.dimension))
            case Output.SPARSE_VECTOR:
                return sparse_noise(hashes, self.sparse_dimension or self.dimension)
            case Output.TOKEN_VECTORS | Output.TOKEN_LOGITS | Output.COLBERT_VECTORS:
                lengths = batch.lengths[indices] - (output is Output.COLBERT_VECTORS)
                number_in_sequence = ranges(np.zeros_like(lengths), lengths).astype(np.uint64)
                row_hashes = mix_bits(np.repeat(hashes, lengths) + number_in_sequence)
                return Rows(noise(row_hashes, self.dimension), lengths)

    def _vectors(self, batch: PackedBatch, indices: npt.NDArray[np.intp], hashes: Hashes) -> npt.NDArray[np.float32]:
        vectors, option_indices = noise(hashes, self.dimension), batch.option_indices[indices]
        if any(options.dimensions for options in batch.options):
            kept = np.array([options.dimensions or self.dimension for options in batch.options])[option_indices]
            vectors *= np.arange(self.dimension) < kept[:, None]
        norms = np.sqrt(np.square(vectors).sum(1))
        if any(options.skip_normalization for options in batch.options):
            norms[np.array([options.skip_normalization for options in batch.options])[option_indices]] = 1
        vectors /= norms[:, None]
        return vectors


def hash_contents(batch: PackedBatch) -> Hashes:
    """[B]: a hash of the tokens, the prompt and the task of each sequence."""
    seeds = [hash_options(options.prompt_tokens, options.task) for options in batch.options]
    return mix_bits(batch.hash_sequences() ^ np.array(seeds, np.uint64)[batch.option_indices])


@cache
def hash_options(prompt_tokens: int, task: str) -> int:
    return zlib.crc32(f"{prompt_tokens} {task}".encode()) << 32


def sparse_noise(hashes: Hashes, dimension: int) -> Rows:
    """Vectors with at most SPARSE_WORDS components that are not 0. They are positive."""
    numbers = mix_bits(np.add.outer(hashes, np.arange(SPARSE_WORDS, dtype=np.uint64)))
    words = (numbers % np.uint64(dimension)).astype(np.int64)
    indices, firsts = np.unique(np.arange(len(hashes))[:, None] * dimension + words, return_index=True)
    weights = (1 + (numbers.ravel()[firsts] >> np.uint64(56))).astype(np.float32) / np.float32(128)
    sequences, words = np.divmod(indices, dimension)
    return Rows(weights, np.bincount(sequences, minlength=len(hashes)), words)


def noise(hashes: Hashes, size: int) -> npt.NDArray[np.float32]:
    """[n, size]: components in [-1, 1) that depend on the number of their row."""
    numbers = mix_bits(np.add.outer(hashes, np.arange(-(-size // 8), dtype=np.uint64)))
    return numbers.view(np.int8)[:, :size].astype(np.float32) / np.float32(128)
