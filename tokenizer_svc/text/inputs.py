"""What can be tokenized, with which options, and how large it is.

The functions that measure inputs make no Python call per input if all inputs are texts, or all are pairs.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import add, methodcaller
from typing import TypeGuard

from tokenizer_svc.text.truncation import Truncation

TEXT_BYTES = 32  # what a text costs in addition to its own bytes

encode_utf8 = methodcaller("encode", "utf-8", "surrogatepass")


class Role(enum.Enum):
    """What a part of a prompt is."""

    PROMPT = 0
    QUERY = 1
    DOCUMENT = 2


Segment = tuple[tuple[Role, str], ...]


@dataclass(frozen=True, slots=True)
class PromptedPair:
    """A query and a document inside the prompt of a reranker. `RerankPrompt.fill` makes it."""

    segments: tuple[Segment, ...]  # each is tokenized on its own

    @property
    def texts(self) -> list[str]:
        return [text for segment in self.segments for _, text in segment]

    def count_characters(self, role: Role) -> int:
        return sum(len(text) for segment in self.segments for own, text in segment if own is role)


@dataclass(frozen=True, slots=True)
class TokenizedInput:
    """A whole sequence that the caller has tokenized, prompt and special tokens included. It is never cut."""

    token_ids: bytes  # uint32
    type_ids: bytes = b""  # uint8


Text = str | tuple[str, str]

# A text, a pair of texts, token ids (uint32) that may be cut, a pair in a prompt, or a tokenized sequence.
Input = Text | bytes | PromptedPair | TokenizedInput

FieldName = Callable[[int], str]  # the request field of the input at this index, for error messages


def indexed_field(field: str) -> FieldName:
    """Names the elements of a repeated field: inputs[0], inputs[1] and so on."""
    return lambda index: f"{field}[{index}]"


INPUTS = indexed_field("inputs")


@dataclass(frozen=True, slots=True)
class Options:
    """How an input is tokenized. `Tokenizer.options` makes them for texts that may have a prompt."""

    truncation: Truncation = Truncation.RIGHT
    prompt: str = ""  # put before each text, and before the first of a pair
    prompt_tokens: int = 0  # includes the special tokens before the prompt; 0 if pooling includes the prompt
    with_alignment: bool = False  # single texts get an `Alignment`, which costs up to a third more time
    tokens_max: int = 0  # most tokens of a sequence, special tokens included; 0 = as many as the model takes
    task: str = ""  # selects the adapter of the sequences; "" = the pod's default, if any
    document_tokens_max: int = 0  # most tokens of a document before it is joined with its query; 0 = as many as fit

    def limit(self, sequence_tokens_max: int) -> int:
        """The most tokens that a sequence may have. `sequence_tokens_max` is the model's limit."""
        return min(self.tokens_max or sequence_tokens_max, sequence_tokens_max)


def are_texts(inputs: Sequence[Input]) -> TypeGuard[Sequence[str]]:
    return set(map(type, inputs)) == {str}


def are_pairs(inputs: Sequence[Input]) -> TypeGuard[Sequence[tuple[str, str]]]:
    return set(map(type, inputs)) == {tuple}


def measure_sizes(inputs: Sequence[Input]) -> list[int]:
    """Bytes of each input in UTF-8 and a constant overhead, for budgets and load reports."""
    if are_texts(inputs):
        return _measure_texts(inputs)
    if are_pairs(inputs):
        firsts, seconds = zip(*inputs, strict=True)
        return list(map(add, _measure_texts(firsts), _measure_texts(seconds)))
    return [measure_size(content) for content in inputs]


def measure_size(content: Input) -> int:
    if isinstance(content, bytes | TokenizedInput):
        return len(_token_ids(content)) + TEXT_BYTES
    if isinstance(content, PromptedPair):
        return sum(_measure_texts(content.texts))
    return sum(_measure_texts((content,) if isinstance(content, str) else content))


def count_characters(inputs: Sequence[Input]) -> int:
    """Code points of the texts without prompts; a token id counts as one. TEI counts the same way."""
    if are_texts(inputs):
        return sum(map(len, inputs))
    if are_pairs(inputs):
        return sum(map(len, chain.from_iterable(inputs)))
    return sum(map(_count_characters, inputs))


def _measure_texts(texts: Sequence[str]) -> list[int]:
    encoded = texts if all(map(str.isascii, texts)) else map(encode_utf8, texts)
    return [length + TEXT_BYTES for length in map(len, encoded)]


def _count_characters(content: Input) -> int:
    if isinstance(content, bytes | TokenizedInput):
        return len(_token_ids(content)) // 4
    if isinstance(content, PromptedPair):
        return content.count_characters(Role.QUERY) + content.count_characters(Role.DOCUMENT)
    return len(content) if isinstance(content, str) else len(content[0]) + len(content[1])


def _token_ids(content: bytes | TokenizedInput) -> bytes:
    return content if isinstance(content, bytes) else content.token_ids
