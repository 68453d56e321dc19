"""The values of tokenization: an `Input` and its `Options` go in, a `TokenSequence` or an error comes out.

Token ids travel as bytes from here to the device; nothing on the way makes Python numbers of them again.
"""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from heddle.rpc.errors import HeddleError
from tokenizer_svc.text.framed import Framed, Limits
from tokenizer_svc.text.truncation import Span, Truncation


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A whole sequence that the caller has tokenized, prompt and special tokens included. It is never cut."""

    token_ids: bytes  # uint32
    type_ids: bytes = b""  # uint8


# A text, a pair of texts, token ids (uint32) that may be cut, a pair inside a prompt, or a tokenized sequence.
Input = str | tuple[str, str] | bytes | Framed | Tokenized

T = TypeVar("T")

FieldOf = Callable[[int], str]  # the request field that holds the input of this index; errors name it


@dataclass(frozen=True, slots=True)
class Options:
    """How an input is tokenized, and with which adapter it is computed; made by `Tokenizer.options` where there may be
    a prompt."""

    truncation: Truncation = Truncation.RIGHT
    prompt: str = ""  # put before each text, and before the first of a pair
    prompt_tokens: int = 0  # special tokens before it included; 0 where pooling takes the prompt in
    with_layout: bool = False  # single texts get a `TextLayout`, which costs up to a third more time
    tokens_max: int = 0  # most tokens of a sequence, special tokens included; 0 = as many as the model takes
    task: str = ""  # selects the adapter of the sequences; "" = the pod's own, if any
    document_tokens_max: int = 0  # most tokens of a document before it is joined with its query; 0 = as many as fit

    def limit(self, sequence_tokens_max: int) -> int:
        """The most tokens that a sequence may have. `sequence_tokens_max` is the model's limit."""
        return min(self.tokens_max or sequence_tokens_max, sequence_tokens_max)

    def limits(self, sequence_tokens_max: int, specials: int) -> Limits:
        """The limits of a prompt that gets `specials` special tokens around it."""
        return Limits(self.truncation, self.limit(sequence_tokens_max) - specials, self.document_tokens_max)


@dataclass(frozen=True, slots=True)
class TextLayout:
    """Where the tokens of a sequence lie in the text they are of; an element for each token."""

    offsets: list[Span]  # from and to, in code points of the whole text, however much of it was cut off
    specials: list[int]  # 1 for what the tokenizer's template added, else 0
    spellings: list[str]  # as the vocabulary has them; an unknown piece may be spelled as in the text

    def keep(self, spans: list[Span]) -> "TextLayout":
        return TextLayout(kept(self.offsets, spans), kept(self.specials, spans), kept(self.spellings, spans))


@dataclass(slots=True)
class TokenSequence:
    """One tokenized text or pair."""

    token_ids: bytes  # uint32 little-endian [tokens], special tokens included
    type_ids: bytes = b""  # uint8 [tokens]; empty = all zero
    truncated: bool = False
    prompt_tokens: int = 0  # so many leading tokens are left out of pooling
    layout: TextLayout | None = None  # where the options asked for it

    @property
    def tokens(self) -> int:
        return len(self.token_ids) // 4

    def keep(self, spans: list[Span], prompt_tokens: int) -> "TokenSequence":
        """The truncated sequence that consists of these spans of this one."""
        token_ids = b"".join(self.token_ids[start * 4 : end * 4] for start, end in spans)
        type_ids = b"".join(self.type_ids[start:end] for start, end in spans)
        layout = self.layout and self.layout.keep(spans)
        return TokenSequence(token_ids, type_ids, True, prompt_tokens, layout)


Result = TokenSequence | HeddleError


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text; both offsets are 0 for those that the template or the prompt added."""

    id: int
    text: str  # slice of the input; for special tokens as the vocabulary spells them
    special: bool
    start_byte: int  # UTF-8 offsets into the input
    end_byte: int


def kept(column: list[T], spans: list[Span]) -> list[T]:
    return [value for start, end in spans for value in column[start:end]]


def numbered(field: str) -> FieldOf:
    """Names the elements of a field: inputs[0], inputs[1]…"""
    return lambda index: f"{field}[{index}]"


INPUTS = numbered("inputs")


def pack_ids(token_ids: list[int]) -> bytes:
    return array("I", token_ids).tobytes()  # half the time of numpy for 10 ids and for 500


def pack_type_ids(type_ids: Iterable[int]) -> bytes:
    packed = bytes(type_ids)
    return packed if any(packed) else b""
