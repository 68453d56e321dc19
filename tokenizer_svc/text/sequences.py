"""The results of tokenization: one `TokenSequence`, or many as the columns of `TokenSequences`.

Token ids stay bytes from here to the device; nothing on the way turns them into Python numbers again.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TypeVar

import tokenizers

from heddle.rpc.errors import HeddleError

Span = tuple[int, int]  # start and end

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where the tokens of a sequence are in its text. Each column has one element per token."""

    offsets: list[Span]  # in code points of the whole text, however much of it was cut off
    special_tokens_mask: list[int]  # 1 for a token that the tokenizer added, else 0
    spellings: list[str]  # as in the vocabulary; an unknown piece may be spelled as in the text

    @classmethod
    def from_encoding(cls, encoding: tokenizers.Encoding, skipped: int) -> "Alignment":
        """`skipped` is the number of characters that were cut off before the encoded text."""
        mask = encoding.special_tokens_mask
        offsets = [
            (0, 0) if special else (start + skipped, end + skipped)
            for (start, end), special in zip(encoding.offsets, mask, strict=True)
        ]
        return cls(offsets, mask, encoding.tokens)

    @classmethod
    def from_ids(cls, token_ids: bytes, library: tokenizers.Tokenizer) -> "Alignment":
        """For ids that came without a text: all tokens count as special."""
        ids = memoryview(token_ids).cast("I")
        spellings = [library.id_to_token(token_id) or "" for token_id in ids]
        return cls([(0, 0)] * len(ids), [1] * len(ids), spellings)

    def keep(self, spans: list[Span]) -> "Alignment":
        columns = self.offsets, self.special_tokens_mask, self.spellings
        offsets, mask, spellings = (_keep(column, spans) for column in columns)
        return Alignment(offsets, mask, spellings)


@dataclass(slots=True)
class TokenSequence:
    """One tokenized text or pair."""

    token_ids: bytes  # uint32 little-endian [tokens], special tokens included
    type_ids: bytes = b""  # uint8 [tokens]; empty = all zero
    truncated: bool = False
    prompt_tokens: int = 0  # number of leading tokens that pooling leaves out
    alignment: Alignment | None = None  # if the options ask for it

    @property
    def tokens(self) -> int:
        return len(self.token_ids) // 4

    def truncate(self, spans: list[Span], prompt_tokens: int) -> "TokenSequence":
        """The tokens of these spans."""
        token_ids = b"".join(self.token_ids[start * 4 : end * 4] for start, end in spans)
        type_ids = b"".join(self.type_ids[start:end] for start, end in spans)
        alignment = self.alignment and self.alignment.keep(spans)
        return TokenSequence(token_ids, type_ids, True, prompt_tokens, alignment)


Result = TokenSequence | HeddleError


@dataclass(slots=True, eq=False)
class TokenSequences:
    """Sequences in the order of their inputs. One that failed has no tokens, and an error.

    A column holds one value for each sequence, so that no sequence costs a Python call. Columns are arrays of the
    standard library: for a request of one input, numpy would cost more than everything else here.
    """

    token_ids: bytes  # uint32 [sum of lengths], special tokens included
    lengths: "array[int]"  # uint32 [sequences]
    prompt_tokens: "array[int]"  # uint32 [sequences]; number of leading tokens that pooling leaves out
    truncated: bytes  # [sequences]; 1 or 0
    type_ids: bytes = b""  # uint8 [sum of lengths]; empty = all zero
    alignments: Sequence[Alignment | None] = ()  # one per sequence if the options ask for them
    errors: Mapping[int, HeddleError] = field(default_factory=dict)  # by index

    @classmethod
    def from_results(cls, results: Sequence[Result]) -> "TokenSequences":
        sequences = [result if isinstance(result, TokenSequence) else TokenSequence(b"") for result in results]
        has_type_ids = any(sequence.type_ids for sequence in sequences)
        return cls(
            b"".join([sequence.token_ids for sequence in sequences]),
            array("I", [sequence.tokens for sequence in sequences]),
            array("I", [sequence.prompt_tokens for sequence in sequences]),
            bytes([sequence.truncated for sequence in sequences]),
            b"".join([s.type_ids or bytes(s.tokens) for s in sequences]) if has_type_ids else b"",
            [sequence.alignment for sequence in sequences],
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
            self.alignments[index] if self.alignments else None,
        )

    def split(self, ranges: Sequence[range]) -> list["TokenSequences"]:
        """The sequences of each range. The ranges are consecutive and cover all sequences, none of which failed."""
        token_at = list(accumulate(self.lengths, initial=0))
        return [self._slice(part, token_at[part.start], token_at[part.stop]) for part in ranges]

    def _slice(self, part: range, start: int, end: int) -> "TokenSequences":
        return TokenSequences(
            self.token_ids[start * 4 : end * 4],
            self.lengths[part.start : part.stop],
            self.prompt_tokens[part.start : part.stop],
            self.truncated[part.start : part.stop],
            self.type_ids[start:end],
            self.alignments[part.start : part.stop],
        )


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text. Both offsets are 0 for a token that the template or the prompt added."""

    id: int
    text: str  # slice of the input; for special tokens the spelling in the vocabulary
    special: bool
    start_byte: int  # UTF-8 offsets into the input
    end_byte: int


def pack_ids(token_ids: list[int]) -> bytes:
    return array("I", token_ids).tobytes()  # half the time of numpy for 10 ids and for 500


def pack_type_ids(type_ids: Iterable[int]) -> bytes:
    packed = bytes(type_ids)
    return packed if any(packed) else b""


def _keep(column: list[T], spans: list[Span]) -> list[T]:
    return [value for start, end in spans for value in column[start:end]]
