"""How large inputs are: in bytes for the budgets of the encoder, in characters for the usage of an answer.

Inputs that are all texts, or all pairs, are counted without a Python call for each of them.
"""

from collections.abc import Sequence
from itertools import chain
from operator import add, methodcaller
from typing import TypeGuard

from tokenizer_svc.text.framed import Framed, Role
from tokenizer_svc.text.sequence import Input, Tokenized

INPUT_BYTES = 32  # what an input costs beside its bytes

encode = methodcaller("encode", "utf-8", "surrogatepass")


def are_texts(inputs: Sequence[Input]) -> TypeGuard[Sequence[str]]:
    return set(map(type, inputs)) == {str}


def are_pairs(inputs: Sequence[Input]) -> TypeGuard[Sequence[tuple[str, str]]]:
    return set(map(type, inputs)) == {tuple}


def sizes_of(inputs: Sequence[Input]) -> list[int]:
    """UTF-8 bytes of each input, and a constant: for budgets and load reports."""
    if are_texts(inputs):
        return text_sizes(inputs)
    if are_pairs(inputs):
        firsts, seconds = zip(*inputs, strict=True)
        return list(map(add, text_sizes(firsts), text_sizes(seconds)))
    return [size_bytes(content) for content in inputs]


def text_sizes(texts: Sequence[str]) -> list[int]:
    encoded = texts if all(map(str.isascii, texts)) else map(encode, texts)
    return [length + INPUT_BYTES for length in map(len, encoded)]


def size_bytes(content: Input) -> int:
    if isinstance(content, str):
        return text_sizes([content])[0]
    if isinstance(content, tuple):
        return sum(text_sizes(content))
    if isinstance(content, Framed):
        return sum(text_sizes(content.texts))
    return len(content.token_ids if isinstance(content, Tokenized) else content) + INPUT_BYTES


def characters_in(inputs: Sequence[Input]) -> int:
    """Code points of the texts without prompts; a token id counts as one. TEI counts the same way."""
    if are_texts(inputs):
        return sum(map(len, inputs))
    if are_pairs(inputs):
        return sum(map(len, chain.from_iterable(inputs)))
    return sum(map(characters_of, inputs))


def characters_of(content: Input) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, tuple):
        return len(content[0]) + len(content[1])
    if isinstance(content, Framed):
        return content.of_role(Role.QUERY) + content.of_role(Role.DOCUMENT)
    return len(content.token_ids if isinstance(content, Tokenized) else content) // 4
