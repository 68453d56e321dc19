"""Which tokens of a sequence remain when it is too long. `fitting` calls it.

The result equals what the `tokenizers` library keeps when it truncates with the strategy longest_first: special tokens
stay, a text loses its end or its beginning, and the longer text of a pair loses tokens first.
"""

import enum
from array import array
from dataclasses import dataclass

import numpy as np
import tokenizers

from tokenizer_svc.text.sequences import Span, pack_ids


class Truncation(enum.Enum):
    """What happens to an input that is too long. Joins the two fields of the contract, permission and side."""

    RIGHT = "right"  # the end is cut off
    LEFT = "left"  # the beginning is cut off
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special tokens that a tokenizer's post-processor puts around a text and around a pair."""

    lead_ids: bytes  # before a single text, uint32
    trail_ids: bytes  # after it
    around_pair: tuple[int, int, int]  # number of tokens before, between and after the texts of a pair
    has_type_ids: bool  # some token of a single text has a type id other than 0

    @classmethod
    def read(cls, library: tokenizers.Tokenizer) -> "SpecialTokens":
        """Reads them off an example, because a post-processor can be a chain of several kinds."""
        single, pair = library.encode("a"), library.encode("a", "a")
        lead, trail = _count_around(single)
        pair_lead, pair_trail = _count_around(pair)
        middle = pair.sequence_ids[pair_lead : len(pair) - pair_trail].count(None)
        return cls(
            lead_ids=pack_ids(single.ids[:lead]),
            trail_ids=pack_ids(single.ids[len(single) - trail :]),
            around_pair=(pair_lead, middle, pair_trail),
            has_type_ids=any(single.type_ids),
        )

    @property
    def lead(self) -> int:
        return len(self.lead_ids) // 4

    @property
    def trail(self) -> int:
        return len(self.trail_ids) // 4

    def count(self, *, is_pair: bool) -> int:
        return sum(self.around_pair) if is_pair else self.lead + self.trail

    def add_around(self, token_ids: bytes, lengths: "array[int]") -> tuple[bytes, "array[int]"]:
        """Puts the special tokens of a single text around each of the sequences. Returns their ids and lengths."""
        lead, trail = self.lead, self.trail
        longer = array("I", [length + lead + trail for length in lengths])
        if len(lengths) == 1:
            return self.lead_ids + token_ids + self.trail_ids, longer
        ends = np.cumsum(longer, dtype=np.int64)
        offsets = np.arange(lead + trail) - np.repeat((0, lead + trail), (lead, trail))  # from start or end
        places = np.add.outer(ends, offsets)
        places[:, :lead] -= np.array(longer, np.int64)[:, None]
        ids = np.empty(ends[-1], "<u4")
        is_text = np.ones(len(ids), np.bool_)
        ids[places] = np.frombuffer(self.lead_ids + self.trail_ids, "<u4")
        is_text[places] = False
        ids[is_text] = np.frombuffer(token_ids, "<u4")
        return ids.tobytes(), longer

    def truncate_text(self, tokens: int, tokens_max: int, side: Truncation) -> list[Span]:
        return truncate_text(tokens, tokens_max - self.lead - self.trail, self.lead, self.trail, side)

    def truncate_pair(
        self, encoding: tokenizers.Encoding, tokens_max: int, side: Truncation, second_max: int
    ) -> list[Span]:
        """`second_max` is the limit of the second text alone; 0 = none."""
        sequence_ids = encoding.sequence_ids
        room = tokens_max - sum(self.around_pair)
        first, second = sequence_ids.count(0), sequence_ids.count(1)
        return truncate_pair(first, second, room, self.around_pair, side, second_max=second_max)

    def truncate_ids(self, token_ids: bytes, tokens_max: int, side: Truncation) -> list[Span]:
        """Keeps special tokens that the caller put where the tokenizer puts its own."""
        lead = self.lead if token_ids.startswith(self.lead_ids) else 0
        trail = self.trail if token_ids.endswith(self.trail_ids) else 0
        return truncate_text(len(token_ids) // 4, tokens_max - lead - trail, lead, trail, side)


def truncate_text(tokens: int, room: int, lead: int, trail: int, side: Truncation) -> list[Span]:
    """Spans that remain of `[lead specials] text [trail specials]` if the text may keep `room` tokens."""
    end = tokens - trail
    start, stop = _keep_side(end - lead, room, side)
    return [(0, lead), (lead + start, lead + stop), (end, tokens)]


def truncate_pair(
    first: int, second: int, room: int, around: tuple[int, int, int], side: Truncation, *, second_max: int = 0
) -> list[Span]:
    """Like `truncate_text` for `[lead] first [middle] second [trail]`. `room` is the limit of both texts together. The
    second text is cut to `second_max` tokens first; 0 = not cut."""
    lead, middle, trail = around
    first_kept, second_kept = longest_first(first, min(second, second_max or second), room)
    first_start, first_stop = _keep_side(first, first_kept, side)
    second_start, second_stop = _keep_side(second, second_kept, side)
    first_end = lead + first
    base = first_end + middle
    return [
        (0, lead),
        (lead + first_start, lead + first_stop),
        (first_end, base),
        (base + second_start, base + second_stop),
        (base + second, base + second + trail),
    ]


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens that each text of a pair keeps: the longer one is cut to the length of the other, then both alike.

    Rounds like `truncate_encodings` in tokenizers/src/utils/truncation.rs.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second)
    longer = room - shorter
    if longer < shorter:
        shorter, longer = room // 2, room - room // 2
    return (longer, shorter) if first > second else (shorter, longer)


def _keep_side(tokens: int, kept: int, side: Truncation) -> Span:
    kept = min(kept, tokens)
    return (tokens - kept, tokens) if side is Truncation.LEFT else (0, kept)


def _count_around(encoding: tokenizers.Encoding) -> tuple[int, int]:
    """Special tokens before the first token of text and after the last."""
    of_text = [index for index, sequence in enumerate(encoding.sequence_ids) if sequence is not None]
    if not of_text:
        return 0, len(encoding)
    return of_text[0], len(encoding) - 1 - of_text[-1]
