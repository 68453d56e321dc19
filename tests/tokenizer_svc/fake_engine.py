"""A fake engine: it answers submissions with arrays that depend on each sequence alone."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from heddle import tensors
from heddle.rpc.errors import HeddleError
from heddle.rpc.stream import Cancel, Reply
from heddle.tensors import Floats
from heddle.v1 import engine_pb2, model_pb2
from tokenizer_svc.text.sequences import TokenSequence

TOKEN_OUTPUTS = {
    engine_pb2.OUTPUT_TOKEN_VECTORS: 0,
    engine_pb2.OUTPUT_TOKEN_LOGITS: 0,
    engine_pb2.OUTPUT_COLBERT_VECTORS: 1,
}  # with the number of leading tokens that get no row
SPARSE_WORDS = 24


class FakeEngine:
    """`dimension` is that of a vector, or the number of labels. Subclasses change its results."""

    def __init__(self, dimension: int = 384, vocabulary_size: int = 30522) -> None:
        self.dimension = dimension
        self.vocabulary_size = vocabulary_size
        self.submissions: list[engine_pb2.Submission] = []
        self.cancelled = 0
        self.model = model_pb2.Model()
        self.delay_s = 0.0
        self.ready = True

    def submit(self, item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        self.submissions.append(item)
        handle = asyncio.get_running_loop().call_later(self.delay_s, lambda: reply(self.outcome(item.sequences)))

        def cancel() -> None:
            self.cancelled += not handle.cancelled()
            handle.cancel()

        return cancel

    @property
    def sequences(self) -> list[TokenSequence]:
        """All that was sent, in order."""
        return [sequence for item in self.submissions for sequence in sequences_of(item.sequences)]

    def outcome(self, message: engine_pb2.Sequences) -> engine_pb2.Outcome | HeddleError:
        sequences = list(sequences_of(message))
        errors = {index: error for index, sequence in enumerate(sequences) if (error := self.error(sequence))}
        outcome = engine_pb2.Outcome(queue_us=1, compute_us=2)
        for index, error in errors.items():
            outcome.errors.add(index=index, error=error.to_proto())
        for output in (message.output, *message.more_outputs):
            arrays = [
                self.array(sequence, output, message) * (np.nan if self.is_broken(sequence, output) else 1)
                for sequence in sequences
            ]
            for index in errors:
                arrays[index] = np.zeros_like(arrays[index])
                if output in TOKEN_OUTPUTS:
                    arrays[index] = arrays[index][:0]
            self.fill(outcome.results.add(), arrays, output, message)
        return outcome

    def error(self, sequence: TokenSequence) -> HeddleError | None:
        """The error of the sequence; None if it does not fail."""
        return None

    def is_broken(self, sequence: TokenSequence, output: engine_pb2.Output) -> bool:
        """Whether NaN is sent for the sequence."""
        return False

    def array(self, sequence: TokenSequence, output: engine_pb2.Output, wanted: engine_pb2.Sequences) -> Floats:
        if output in TOKEN_OUTPUTS:
            rows = sequence.tokens - TOKEN_OUTPUTS[output]
            return noise(sequence, rows * self.dimension, wanted.task).reshape(rows, self.dimension)
        if output == engine_pb2.OUTPUT_SPARSE_VECTOR:
            return sparse_noise(sequence, self.vocabulary_size)
        row = noise(sequence, self.dimension, wanted.task)
        if output == engine_pb2.OUTPUT_LOGITS:
            return row
        row = row[: wanted.dimensions or None]
        return row if wanted.skip_normalization else row / np.sqrt(row @ row)

    def fill(
        self,
        result: engine_pb2.Result,
        arrays: Sequence[Floats],
        output: engine_pb2.Output,
        wanted: engine_pb2.Sequences,
    ) -> None:
        if output == engine_pb2.OUTPUT_SPARSE_VECTOR:
            indices = [array.nonzero()[0] for array in arrays]
            lengths = np.array([len(own) for own in indices])
            values = np.concatenate([array[own] for array, own in zip(arrays, indices, strict=True)])
            tensors.fill_sparse(result.sparse, lengths, np.concatenate(indices), values, self.vocabulary_size)
        elif output in TOKEN_OUTPUTS:
            lengths = np.array([len(array) for array in arrays])
            tensors.fill_tokens(result.tokens, np.concatenate(arrays), lengths, wanted.data_type)
        else:
            tensors.fill(result.tensor, np.stack(arrays), wanted.data_type)


def sequences_of(message: engine_pb2.Sequences) -> Iterator[TokenSequence]:
    """Fails for a message whose sizes do not match."""
    total = int(np.frombuffer(message.lengths, "<u4").sum())
    assert len(message.token_ids) == 4 * total
    assert len(message.type_ids) in (0, total)
    for start, end in tensors.spans(message.lengths):
        types = message.type_ids[start:end]
        yield TokenSequence(
            message.token_ids[start * 4 : end * 4],
            types if any(types) else b"",
            prompt_tokens=min(message.prompt_tokens, end - start),
        )


def sparse_noise(sequence: TokenSequence, dimension: int) -> Floats:
    """At most SPARSE_WORDS components are not 0; those are positive."""
    digest = np.frombuffer(hash_key(sequence, 4 * SPARSE_WORDS), "<u4")
    vector = np.zeros(dimension, np.float32)
    vector[digest % dimension] = (1 + digest % 255) / np.float32(128)
    return vector


def noise(sequence: TokenSequence, size: int, task: str = "") -> Floats:
    """Components in [-1, 1)."""
    numbers: Floats = np.frombuffer(hash_key(sequence, size, task), np.int8).astype(np.float32) / np.float32(128)
    return numbers


def hash_key(sequence: TokenSequence, size: int, task: str = "") -> bytes:
    content = sequence.token_ids + sequence.type_ids + sequence.prompt_tokens.to_bytes(4, "little") + task.encode()
    return hashlib.shake_128(content).digest(size)
