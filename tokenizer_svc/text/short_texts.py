"""Encodes texts and pairs that are short enough to show to the tokenizer as a whole.

Most requests hold nothing else, so an input must cost little here: the library is called once for all of them, and the
rest is done for all of their tokens together. Only a sequence that turns out too long is fitted by itself.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from operator import attrgetter, itemgetter
from typing import NamedTuple

import tokenizers

from tokenizer_svc.text.batch_encoding import encode_all
from tokenizer_svc.text.fitting import SequenceFitter
from tokenizer_svc.text.inputs import Input, Options, Text, are_pairs, are_texts
from tokenizer_svc.text.long_texts import window_chars
from tokenizer_svc.text.sequences import TokenSequence, TokenSequences, pack_type_ids

get_first = itemgetter(0)
get_ids = attrgetter("ids")
get_type_ids = attrgetter("type_ids")


class ShortTexts(NamedTuple):
    texts: list[Text]  # prompts included
    options: Options
    tokens_max: int
    is_pair: bool


@dataclass(frozen=True, slots=True)
class ShortTextEncoder:
    library: tokenizers.Tokenizer
    fitter: SequenceFitter
    gives_type_ids: bool

    def select(self, inputs: Sequence[Input], options: Options) -> ShortTexts | None:
        """None unless all inputs are texts, or all are pairs, and each is short and not empty."""
        if options.with_alignment or options.document_tokens_max:
            return None
        tokens_max = options.limit(self.fitter.sequence_tokens_max)
        prompt = options.prompt
        texts: list[Text]
        if are_texts(inputs):
            texts = [prompt + text for text in inputs] if prompt else list(inputs)
            some_are_empty = not all(inputs)
            longest = max(map(len, texts))
        elif are_pairs(inputs):
            texts = [(prompt + first, second) for first, second in inputs] if prompt else list(inputs)
            some_are_empty = not all(map(get_first, inputs))
            longest = max(map(len, chain.from_iterable(texts)))
        else:
            return None
        if some_are_empty or longest > window_chars(tokens_max, 0):
            return None
        return ShortTexts(texts, options, tokens_max, isinstance(texts[0], tuple))

    def encode(self, work: Mapping[int, ShortTexts]) -> dict[int, TokenSequences]:
        """Sequences by the keys of `work`; none at all if the library cannot encode one of the texts."""
        # Adding the special tokens takes the library a fifth of its time for a text of three words. If they are the
        # same around every text, adding them here costs little.
        is_bare = not self.fitter.special_tokens.has_type_ids and not any(short.is_pair for short in work.values())
        texts = list(chain.from_iterable([short.texts for short in work.values()]))
        encodings = encode_all(texts, self.library.encode_batch_fast, add_special_tokens=not is_bare)
        if encodings is None:
            return {}
        sequences: dict[int, TokenSequences] = {}
        start = 0
        for key, short in work.items():
            end = start + len(short.texts)
            sequences[key] = self._join(short, encodings[start:end], is_bare=is_bare)
            start = end
        return sequences

    def _join(self, short: ShortTexts, encodings: Sequence[tokenizers.Encoding], *, is_bare: bool) -> TokenSequences:
        lengths = array("I", map(len, encodings))
        token_ids = array("I", chain.from_iterable(map(get_ids, encodings))).tobytes()
        type_ids = b""
        if is_bare:
            token_ids, lengths = self.fitter.special_tokens.add_around(token_ids, lengths)
        elif self.gives_type_ids:
            type_ids = pack_type_ids(chain.from_iterable(map(get_type_ids, encodings)))
        prompt_tokens = array("I", map(min, lengths, repeat(short.options.prompt_tokens)))
        sequences = TokenSequences(token_ids, lengths, prompt_tokens, bytes(len(lengths)), type_ids)
        unfit = self._find_unfit(sequences, short.tokens_max)
        if not unfit:
            return sequences
        results = list(sequences)
        for index in unfit:
            sequence = results[index]
            assert isinstance(sequence, TokenSequence)
            results[index] = self.fitter.fit_text(sequence, encodings[index], short.options, is_pair=short.is_pair)
        return TokenSequences.from_results(results)

    def _find_unfit(self, sequences: TokenSequences, tokens_max: int) -> list[int]:
        """Indices of the sequences to fit by themselves: all of them if the vocabulary may not have some ids."""
        lengths = sequences.lengths
        if self.fitter.exceeds_vocabulary:
            return list(range(len(lengths)))
        if min(lengths) > 0 and max(lengths) <= tokens_max:
            return []
        return [index for index, tokens in enumerate(lengths) if not 0 < tokens <= tokens_max]
