"""A backend without a model: deterministic arrays after a modelled time. For tests, load tests of the other services,
and capacity planning. The time is slept, not computed, so that it takes nothing from the processes being measured."""

import hashlib
import time
from collections.abc import Sequence as Sequences
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine_svc.batch import Output, PackedBatch, Sequence

# About as many words as a short text has, and its synonyms.
SPARSE_WORDS = 24


@dataclass(frozen=True, slots=True)
class SimulatedBackend:
    """A batch of T tokens takes `fixed_us` + `per_token_ns` * T. An array depends on its sequence alone."""

    outputs: frozenset[Output] = frozenset({Output.VECTOR, Output.TOKEN_VECTORS})
    dimension: int = 384  # of a vector; for logits the number of labels
    sparse_dimension: int = 0  # of a sparse vector; 0 = `dimension`
    fixed_us: int = 2_000
    per_token_ns: int = 1_000
    data_type: str = "float32"

    def run(self, batch: PackedBatch, cores: int = 0) -> Sequences[npt.NDArray[np.float32]]:
        ready_at = time.monotonic() + self.fixed_us / 1e6 + self.per_token_ns * batch.tokens / 1e9
        arrays = [self._array(sequence, output) for sequence in batch.sequences for output in sequence.outputs]
        time.sleep(max(0.0, ready_at - time.monotonic()))
        return arrays

    def close(self) -> None:
        pass

    def _array(self, sequence: Sequence, output: Output) -> npt.NDArray[np.float32]:
        if output not in self.outputs:
            raise ValueError(f"not simulated: {output}")
        match output:
            case Output.VECTOR:
                vector = noise(sequence, self.dimension)[: sequence.dimensions or None]
                return vector if sequence.skip_normalization else vector / np.sqrt(vector @ vector)
            case Output.TOKEN_VECTORS | Output.TOKEN_LOGITS:
                return noise(sequence, sequence.tokens * self.dimension).reshape(sequence.tokens, self.dimension)
            case Output.COLBERT_VECTORS:
                rows = sequence.tokens - 1
                return noise(sequence, rows * self.dimension).reshape(rows, self.dimension)
            case Output.SPARSE_VECTOR:
                return sparse_noise(sequence, self.sparse_dimension or self.dimension)
            case Output.LOGITS:
                return noise(sequence, self.dimension)


def sparse_noise(sequence: Sequence, dimension: int) -> npt.NDArray[np.float32]:
    """At most SPARSE_WORDS components of `dimension` are not 0; those are positive. They follow from the tokens."""
    digest = np.frombuffer(digest_of(sequence, 4 * SPARSE_WORDS), "<u4")
    vector = np.zeros(dimension, np.float32)
    vector[digest % dimension] = (1 + digest % 255) / np.float32(128)
    return vector


def noise(sequence: Sequence, size: int) -> npt.NDArray[np.float32]:
    """Components in [-1, 1) that follow from the tokens: the bytes of a hash, of any length."""
    return np.frombuffer(digest_of(sequence, size), np.int8).astype(np.float32) / np.float32(128)


def digest_of(sequence: Sequence, size: int) -> bytes:
    content = sequence.token_ids + sequence.type_ids + sequence.prompt_tokens.to_bytes(4, "little")
    content += sequence.task.encode()
    return hashlib.shake_128(content).digest(size)
