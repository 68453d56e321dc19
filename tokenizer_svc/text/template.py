"""The special tokens that a tokenizer's post-processor puts around a text and around a pair.

`tokenizer_svc.text.tokenization` asks it what remains of a sequence that is too long.
"""

from dataclasses import dataclass

import tokenizers

from tokenizer_svc.text.sequence import pack_ids
from tokenizer_svc.text.truncation import Span, Truncation, kept_of_pair, kept_of_single


@dataclass(frozen=True, slots=True)
class Template:
    lead_ids: bytes  # before a single text, uint32
    trail_ids: bytes  # after it
    pair_specials: tuple[int, int, int]  # tokens before, between and after the texts of a pair
    has_type_ids: bool  # a single text is given other type ids than 0

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer) -> "Template":
        """Read off an example, since a post-processor can be a chain of several kinds."""
        single, pair = tokenizer.encode("a"), tokenizer.encode("a", "a")
        lead, trail = _specials_around(single)
        pair_lead, pair_trail = _specials_around(pair)
        middle = pair.sequence_ids[pair_lead : len(pair) - pair_trail].count(None)
        return cls(
            lead_ids=pack_ids(single.ids[:lead]),
            trail_ids=pack_ids(single.ids[len(single) - trail :]),
            pair_specials=(pair_lead, middle, pair_trail),
            has_type_ids=any(single.type_ids),
        )

    @property
    def lead(self) -> int:
        return len(self.lead_ids) // 4

    @property
    def trail(self) -> int:
        return len(self.trail_ids) // 4

    def kept_of_single(self, tokens: int, tokens_max: int, side: Truncation) -> list[Span]:
        return kept_of_single(tokens, tokens_max - self.lead - self.trail, self.lead, self.trail, side)

    def kept_of_pair(
        self, encoding: tokenizers.Encoding, tokens_max: int, side: Truncation, second_max: int
    ) -> list[Span]:
        """`second_max` is the limit of the second text alone; 0 = none."""
        sequence_ids = encoding.sequence_ids
        room = tokens_max - sum(self.pair_specials)
        first, second = sequence_ids.count(0), sequence_ids.count(1)
        return kept_of_pair(first, second, room, self.pair_specials, side, second_max=second_max)

    def kept_of_ids(self, token_ids: bytes, tokens_max: int, side: Truncation) -> list[Span]:
        """Special tokens that a caller put where the template has its own stay, as they do around a text."""
        lead = self.lead if token_ids.startswith(self.lead_ids) else 0
        trail = self.trail if token_ids.endswith(self.trail_ids) else 0
        return kept_of_single(len(token_ids) // 4, tokens_max - lead - trail, lead, trail, side)


def _specials_around(encoding: tokenizers.Encoding) -> tuple[int, int]:
    """Special tokens before the first token of text and after the last."""
    of_text = [index for index, sequence in enumerate(encoding.sequence_ids) if sequence is not None]
    if not of_text:
        return 0, len(encoding)
    return of_text[0], len(encoding) - 1 - of_text[-1]
