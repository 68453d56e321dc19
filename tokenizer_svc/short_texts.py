"""Encodes texts and pairs that are short enough to be looked at whole. `tokenizer_svc.tokenization` calls it.

Most requests hold nothing else, so this is the path on which an input must cost little: the library is called once for
all of them, and what follows is numpy on all of their tokens. A sequence that turns out too long is fitted by itself.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import tokenizers

from tokenizer_svc.batch_encoding import encode_all
from tokenizer_svc.input_sizes import are_pairs, are_texts
from tokenizer_svc.sequence import Input, Options, Result, TokenSequence, pack_type_ids
from tokenizer_svc.template import Template
from tokenizer_svc.token_sequences import Counts, TokenSequences
from tokenizer_svc.truncation import window_chars
from tokenizer_svc.view import Text, View

ids_of = attrgetter("ids")
type_ids_of = attrgetter("type_ids")

Fit = Callable[[TokenSequence, tokenizers.Encoding, View], Result]


class ShortTexts(NamedTuple):
    texts: list[Text]  # prompts included
    options: Options
    tokens_max: int
    is_pair: bool


@dataclass(frozen=True, slots=True)
class ShortTextEncoder:
    tokenizer: tokenizers.Tokenizer
    template: Template
    gives_type_ids: bool
    sequence_tokens_max: int
    vocabulary_size: int
    fit: Fit  # makes the result of a sequence that is empty, too long, or outside the vocabulary

    def short_texts(self, inputs: Sequence[Input], options: Options) -> ShortTexts | None:
        """None unless all inputs are texts, or all are pairs, and none is empty or so long that a window would do."""
        if options.with_layout or options.document_tokens_max:
            return None
        tokens_max = options.limit(self.sequence_tokens_max)
        texts: list[Text]
        if are_texts(inputs):
            texts = [f"{options.prompt}{text}" for text in inputs] if options.prompt else list(inputs)  # type: ignore
            some_are_empty = not all(inputs)
            longest = max(map(len, texts))
            is_pair = False
        elif are_pairs(inputs):
            firsts, seconds = zip(*inputs, strict=True)
            some_are_empty = not all(firsts)
            if options.prompt:
                firsts = [f"{options.prompt}{first}" for first in firsts]
            texts = list(zip(firsts, seconds, strict=True))
            longest = max(map(len, chain(firsts, seconds)))
            is_pair = True
        else:
            return None
        if some_are_empty or longest > window_chars(tokens_max, 0):
            return None
        return ShortTexts(texts, options, tokens_max, is_pair)

    def encode(self, work: Mapping[int, ShortTexts]) -> dict[int, TokenSequences]:
        """By the keys of `work`. Texts that the library does not take together are left out."""
        sequences: dict[int, TokenSequences] = {}
        for is_bare in (True, False):
            chosen = {key: some for key, some in work.items() if self._is_bare(some) == is_bare}
            if chosen:
                sequences |= self._encode(chosen, is_bare=is_bare)
        return sequences

    def _is_bare(self, some: ShortTexts) -> bool:
        """Whether the library need not add special tokens. They are a fifth of what it takes for a text of three words;
        numpy adds them for little where they are the same around every text."""
        return not some.is_pair and not self.template.has_type_ids

    def _encode(self, work: Mapping[int, ShortTexts], *, is_bare: bool) -> dict[int, TokenSequences]:
        texts = list(chain.from_iterable([some.texts for some in work.values()]))
        encodings = encode_all(texts, self.tokenizer.encode_batch_fast, add_special_tokens=not is_bare)
        if encodings is None:
            return {}
        sequences: dict[int, TokenSequences] = {}
        start = 0
        for key, some in work.items():
            end = start + len(some.texts)
            sequences[key] = self._sequences(some, encodings[start:end], is_bare=is_bare)
            start = end
        return sequences

    def _sequences(
        self, some: ShortTexts, encodings: Sequence[tokenizers.Encoding], *, is_bare: bool
    ) -> TokenSequences:
        count = len(encodings)
        lengths: Counts = np.fromiter(map(len, encodings), np.uint32, count)
        token_ids = array("I", chain.from_iterable(map(ids_of, encodings))).tobytes()
        type_ids = b""
        if is_bare:
            token_ids, lengths = add_specials(token_ids, lengths, self.template)
        elif self.gives_type_ids:
            type_ids = pack_type_ids(chain.from_iterable(map(type_ids_of, encodings)))
        prompt_tokens = np.minimum(lengths, np.uint32(some.options.prompt_tokens))
        sequences = TokenSequences(token_ids, lengths, prompt_tokens, np.zeros(count, np.bool_), type_ids)
        unfit = self._unfit(sequences, some.tokens_max)
        if not unfit:
            return sequences
        results = list(sequences)
        for index in unfit:
            view = View(some.texts[index], some.options, some.tokens_max, (), some.is_pair)
            sequence = results[index]
            assert isinstance(sequence, TokenSequence)
            results[index] = self.fit(sequence, encodings[index], view)
        return TokenSequences.of(results)

    def _unfit(self, sequences: TokenSequences, tokens_max: int) -> list[int]:
        """Indices of the sequences to look at one by one: all of them if some id is outside the vocabulary."""
        lengths = sequences.lengths
        if np.frombuffer(sequences.token_ids, "<u4").max(initial=0) >= self.vocabulary_size:
            return list(range(len(lengths)))
        if lengths.min() > 0 and lengths.max() <= tokens_max:
            return []
        unfit: list[int] = np.flatnonzero((lengths == 0) | (lengths > tokens_max)).tolist()
        return unfit


def add_specials(token_ids: bytes, lengths: Counts, template: Template) -> tuple[bytes, Counts]:
    """Puts the special tokens of a single text around each of the sequences."""
    lead, trail = template.lead, template.trail
    if len(lengths) == 1 or not lead + trail:
        return template.lead_ids + token_ids + template.trail_ids, lengths + np.uint32(lead + trail)
    lengths = lengths + np.uint32(lead + trail)
    ends = np.cumsum(lengths, dtype=np.int64)
    specials = np.frombuffer(template.lead_ids + template.trail_ids, "<u4")
    offsets = np.arange(lead + trail) + np.repeat((0, -lead - trail), (lead, trail))  # from the start, or from the end
    places = np.add.outer(ends, offsets)
    places[:, :lead] -= lengths[:, None]
    framed = np.empty(ends[-1], "<u4")
    is_text = np.ones(len(framed), np.bool_)
    framed[places] = specials
    is_text[places] = False
    framed[is_text] = np.frombuffer(token_ids, "<u4")
    return framed.tobytes(), lengths
