"""The part of a text or pair that the tokenizer is shown: all of it, or a window of one that is far too long.

`tokenizer_svc.text.tokenization` makes a window of each input, and a wider one where the first shows too little.
"""

from dataclasses import dataclass

import tokenizers

from tokenizer_svc.text.sequence import Options
from tokenizer_svc.text.truncation import MARGIN_TOKENS, Truncation, window

Text = str | tuple[str, str]


@dataclass(slots=True)
class TextWindow:
    text: Text  # the prompt included
    options: Options
    tokens_max: int  # that are kept, special tokens included
    cuts: tuple[bool, ...]  # whether something was left out, per text; empty if nothing was
    is_pair: bool
    skipped: int = 0  # characters of a single text that lie before what is shown of it

    @classmethod
    def of(cls, text: Text, options: Options, tokens_max: int, chars: int) -> "TextWindow":
        if isinstance(text, str):
            whole = options.prompt + text
            if len(whole) <= chars:
                return cls(whole, options, tokens_max, (), False)
            shown = window(whole, chars, options.truncation)
            out = len(whole) - len(shown)
            skipped = out if options.truncation is Truncation.LEFT else 0
            return cls(shown, options, tokens_max, (True,) if out else (), False, skipped)
        first, second = options.prompt + text[0], text[1]
        pair = window(first, chars, options.truncation), window(second, chars, options.truncation)
        cuts = len(pair[0]) < len(first), len(pair[1]) < len(second)
        return cls(pair, options, tokens_max, cuts if any(cuts) else (), True)

    @property
    def is_cut(self) -> bool:
        return bool(self.cuts)

    def suffices(self, encoding: tokenizers.Encoding) -> bool:
        """Whether what was left out cannot change the tokens that are kept."""
        if not self.cuts:
            return True
        needed = self.tokens_max + MARGIN_TOKENS
        if not self.is_pair:
            return len(encoding) >= needed
        sequence_ids = encoding.sequence_ids
        return all(sequence_ids.count(n) >= needed for n, is_cut in enumerate(self.cuts) if is_cut)
