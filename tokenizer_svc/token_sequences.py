"""Many tokenized texts as columns: what `Tokenizer.encode` makes of the inputs of a request, and the tasks send on.

A column is one value for all sequences, so that work on a sequence is work of numpy and not of Python.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from heddle.rpc.errors import HeddleError
from tokenizer_svc.sequence import Result, TextLayout, TokenSequence

Counts = npt.NDArray[np.uint32]


@dataclass(slots=True, eq=False)
class TokenSequences:
    """Sequences in the order of their inputs. One that failed has no tokens, and an error."""

    token_ids: bytes  # uint32 [sum of lengths], special tokens included
    lengths: Counts  # [sequences]
    prompt_tokens: Counts  # [sequences]; so many leading tokens are left out of pooling
    truncated: npt.NDArray[np.bool_]  # [sequences]
    type_ids: bytes = b""  # uint8 [sum of lengths]; empty = all zero
    layouts: Sequence[TextLayout | None] = ()  # one per sequence where the options asked for them
    errors: Mapping[int, HeddleError] = field(default_factory=dict)  # by index

    @classmethod
    def of(cls, results: Sequence[Result]) -> "TokenSequences":
        sequences = [result if isinstance(result, TokenSequence) else TokenSequence(b"") for result in results]
        has_type_ids = any(sequence.type_ids for sequence in sequences)
        return cls(
            b"".join([sequence.token_ids for sequence in sequences]),
            np.array([sequence.tokens for sequence in sequences], np.uint32),
            np.array([sequence.prompt_tokens for sequence in sequences], np.uint32),
            np.array([sequence.truncated for sequence in sequences], np.bool_),
            b"".join([s.type_ids or bytes(s.tokens) for s in sequences]) if has_type_ids else b"",
            [sequence.layout for sequence in sequences],
            {index: result for index, result in enumerate(results) if isinstance(result, HeddleError)},
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return len(self.token_ids) // 4

    def __iter__(self) -> Iterator[Result]:
        ends = np.cumsum(self.lengths, dtype=np.int64).tolist()
        for index, (start, end) in enumerate(pairwise([0, *ends])):
            yield self.errors.get(index) or self._sequence(index, start, end)

    def _sequence(self, index: int, start: int, end: int) -> TokenSequence:
        type_ids = self.type_ids[start:end]
        return TokenSequence(
            self.token_ids[start * 4 : end * 4],
            type_ids if any(type_ids) else b"",
            bool(self.truncated[index]),
            int(self.prompt_tokens[index]),
            self.layouts[index] if self.layouts else None,
        )

    def split(self, ranges: Sequence[range]) -> list["TokenSequences"]:
        """The sequences of each range; the ranges follow one another and take in all of them. None may have failed."""
        if len(ranges) == 1:
            return [self]
        starts = [0, *np.cumsum(self.lengths, dtype=np.int64)[[range_.stop - 1 for range_ in ranges]].tolist()]
        return [
            TokenSequences(
                self.token_ids[start * 4 : end * 4],
                self.lengths[range_.start : range_.stop],
                self.prompt_tokens[range_.start : range_.stop],
                self.truncated[range_.start : range_.stop],
                self.type_ids[start:end],
                self.layouts[range_.start : range_.stop],
            )
            for range_, (start, end) in zip(ranges, pairwise(starts), strict=True)
        ]
