"""Encodes texts and pairs that are short enough to be looked at whole. `tokenizer_svc.text.tokenization` calls it.

Most requests hold nothing else, so this is the path on which an input must cost little: the library is called once for
all of them, and what follows is numpy on all of their tokens. A sequence that turns out too long is fitted by itself.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from operator import attrgetter, itemgetter
from typing import NamedTuple

import numpy as np
import tokenizers

from tokenizer_svc.text.batch_encoding import encode_all
from tokenizer_svc.text.input_sizes import are_pairs, are_texts
from tokenizer_svc.text.sequence import Input, Options, Result, TokenSequence, pack_type_ids
from tokenizer_svc.text.template import Template
from tokenizer_svc.text.text_window import Text, TextWindow
from tokenizer_svc.text.token_sequences import TokenSequences
from tokenizer_svc.text.truncation import window_chars

first_of = itemgetter(0)
ids_of = attrgetter("ids")
type_ids_of = attrgetter("type_ids")

Fit = Callable[[TokenSequence, tokenizers.Encoding, TextWindow], Result]


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
    exceeds_vocabulary: bool  # whether the tokenizer has ids that the model does not
    fit: Fit  # makes the result of a sequence that is empty, too long, or outside the vocabulary

    def short_texts(self, inputs: Sequence[Input], options: Options) -> ShortTexts | None:
        """None unless all inputs are texts, or all are pairs, and none is empty or so long that a window would do."""
        if options.with_layout or options.document_tokens_max:
            return None
        tokens_max = options.limit(self.sequence_tokens_max)
        prompt = options.prompt
        texts: list[Text]
        if are_texts(inputs):
            texts = [prompt + text for text in inputs] if prompt else list(inputs)
            some_are_empty = not all(inputs)
            longest = max(map(len, texts))
        elif are_pairs(inputs):
            texts = [(prompt + first, second) for first, second in inputs] if prompt else list(inputs)
            some_are_empty = not all(map(first_of, inputs))
            longest = max(map(len, chain.from_iterable(texts)))
        else:
            return None
        if some_are_empty or longest > window_chars(tokens_max, 0):
            return None
        return ShortTexts(texts, options, tokens_max, isinstance(texts[0], tuple))

    def encode(self, work: Mapping[int, ShortTexts]) -> dict[int, TokenSequences]:
        """By the keys of `work`; none if the library does not take the texts together."""
        # Special tokens are a fifth of what the library takes for a text of three words. They cost little to add here
        # where they are the same around every text.
        is_bare = not self.template.has_type_ids and not any(some.is_pair for some in work.values())
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
        lengths = array("I", map(len, encodings))
        token_ids = array("I", chain.from_iterable(map(ids_of, encodings))).tobytes()
        type_ids = b""
        if is_bare:
            token_ids, lengths = add_specials(token_ids, lengths, self.template)
        elif self.gives_type_ids:
            type_ids = pack_type_ids(chain.from_iterable(map(type_ids_of, encodings)))
        prompt_tokens = array("I", map(min, lengths, repeat(some.options.prompt_tokens)))
        sequences = TokenSequences(token_ids, lengths, prompt_tokens, bytes(len(lengths)), type_ids)
        unfit = self._unfit(sequences, some.tokens_max)
        if not unfit:
            return sequences
        results = list(sequences)
        for index in unfit:
            window = TextWindow(some.texts[index], some.options, some.tokens_max, (), some.is_pair)
            sequence = results[index]
            assert isinstance(sequence, TokenSequence)
            results[index] = self.fit(sequence, encodings[index], window)
        return TokenSequences.of(results)

    def _unfit(self, sequences: TokenSequences, tokens_max: int) -> list[int]:
        """Indices of the sequences to look at one by one: all of them if some ids may be outside the vocabulary."""
        lengths = sequences.lengths
        if self.exceeds_vocabulary:
            return list(range(len(lengths)))
        if min(lengths) > 0 and max(lengths) <= tokens_max:
            return []
        return [index for index, tokens in enumerate(lengths) if not 0 < tokens <= tokens_max]


def add_specials(token_ids: bytes, lengths: "array[int]", template: Template) -> tuple[bytes, "array[int]"]:
    """Puts the special tokens of a single text around each of the sequences."""
    lead, trail = template.lead, template.trail
    longer = array("I", [length + lead + trail for length in lengths])
    if len(lengths) == 1:
        return template.lead_ids + token_ids + template.trail_ids, longer
    ends = np.cumsum(longer, dtype=np.int64)
    offsets = np.arange(lead + trail) - np.repeat((0, lead + trail), (lead, trail))  # from the start, or from the end
    places = np.add.outer(ends, offsets)
    places[:, :lead] -= np.array(longer, np.int64)[:, None]
    framed = np.empty(ends[-1], "<u4")
    is_text = np.ones(len(framed), np.bool_)
    framed[places] = np.frombuffer(template.lead_ids + template.trail_ids, "<u4")
    is_text[places] = False
    framed[is_text] = np.frombuffer(token_ids, "<u4")
    return framed.tobytes(), longer
