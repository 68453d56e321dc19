"""Many tokenized texts as columns: what `Tokenizer.encode` makes of the inputs of a request, and the tasks send on.

A column is one value for all sequences, so that no sequence costs a Python call. They are arrays of the standard
library: numpy would cost a request of one input more than all else here.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from heddle.rpc.errors import HeddleError
from tokenizer_svc.text.sequence import Result, TextLayout, TokenSequence


@dataclass(slots=True, eq=False)
class TokenSequences:
    """Sequences in the order of their inputs. One that failed has no tokens, and an error."""

    token_ids: bytes  # uint32 [sum of lengths], special tokens included
    lengths: "array[int]"  # uint32 [sequences]
    prompt_tokens: "array[int]"  # uint32 [sequences]; so many leading tokens are left out of pooling
    truncated: bytes  # [sequences]; 1 or 0
    type_ids: bytes = b""  # uint8 [sum of lengths]; empty = all zero
    layouts: Sequence[TextLayout | None] = ()  # one per sequence where the options asked for them
    errors: Mapping[int, HeddleError] = field(default_factory=dict)  # by index

    @classmethod
    def of(cls, results: Sequence[Result]) -> "TokenSequences":
        sequences = [result if isinstance(result, TokenSequence) else TokenSequence(b"") for result in results]
        has_type_ids = any(sequence.type_ids for sequence in sequences)
        return cls(
            b"".join([sequence.token_ids for sequence in sequences]),
            array("I", [sequence.tokens for sequence in sequences]),
            array("I", [sequence.prompt_tokens for sequence in sequences]),
            bytes([sequence.truncated for sequence in sequences]),
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
        for index, (start, end) in enumerate(pairwise(accumulate(self.lengths, initial=0))):
            yield self.errors.get(index) or self._sequence(index, start, end)

    def _sequence(self, index: int, start: int, end: int) -> TokenSequence:
        type_ids = self.type_ids[start:end]
        return TokenSequence(
            self.token_ids[start * 4 : end * 4],
            type_ids if any(type_ids) else b"",
            bool(self.truncated[index]),
            self.prompt_tokens[index],
            self.layouts[index] if self.layouts else None,
        )

    def split(self, ranges: Sequence[range]) -> list["TokenSequences"]:
        """The sequences of each range; the ranges follow one another and take in all of them. None may have failed."""
        token_at = list(accumulate(self.lengths, initial=0))
        return [self._part(some, token_at[some.start], token_at[some.stop]) for some in ranges]

    def _part(self, some: range, start: int, end: int) -> "TokenSequences":
        return TokenSequences(
            self.token_ids[start * 4 : end * 4],
            self.lengths[some.start : some.stop],
            self.prompt_tokens[some.start : some.stop],
            self.truncated[some.start : some.stop],
            self.type_ids[start:end],
            self.layouts[some.start : some.stop],
        )
