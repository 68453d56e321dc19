"""What is kept of an input that is longer than the model can take. Pure; `tokenizer_svc.text.tokenization` calls it.

Two cuts, both equal to what the `tokenizers` library keeps when it truncates (strategy longest_first):

* of tokens: the special tokens stay, the text loses its end or its beginning, and of a pair the longer one loses first;
* of characters, before the tokenizer sees them (`window`), so that a long text costs no more than what is kept of it.
  A cut at a space can change only the tokens next to it, so its result stands when MARGIN_TOKENS more came out than
  can be kept; otherwise a larger window is taken.
"""

import enum
import re

from heddle.rpc.errors import ErrorKind, HeddleError

MARGIN_TOKENS = 128  # more than WordPiece makes of its longest word (100 characters)
WINDOW_CHARS_PER_TOKEN = 10  # English has 4 to 5
WINDOW_CHARS_MIN = 2048
WINDOW_GROWTH = 8
WINDOWS_MAX = 3  # what lies beyond the third is taken as cut off, however few tokens came before it

SPACE = re.compile(r"[ \n]")

Span = tuple[int, int]


class Truncation(enum.Enum):
    """What becomes of an input that is too long: the contract's permission and side, brought together."""

    RIGHT = "right"  # the end is cut off
    LEFT = "left"  # the beginning
    REFUSE = "refuse"


def kept_of_single(tokens: int, room: int, lead: int, trail: int, side: Truncation) -> list[Span]:
    """Spans of a sequence `[lead specials] text [trail specials]` that remain when the text may keep `room` tokens."""
    end = tokens - trail
    start, stop = _side(end - lead, room, side)
    return [(0, lead), (lead + start, lead + stop), (end, tokens)]


def kept_of_pair(
    first: int, second: int, room: int, specials: tuple[int, int, int], side: Truncation, *, second_max: int = 0
) -> list[Span]:
    """Like `kept_of_single` for `[lead] first [middle] second [trail]`. `room` is the limit of both texts together. The
    second text is cut to `second_max` tokens first; 0 = not cut."""
    lead, middle, trail = specials
    first_kept, second_kept = longest_first(first, min(second, second_max or second), room)
    first_start, first_stop = _side(first, first_kept, side)
    second_start, second_stop = _side(second, second_kept, side)
    join = lead + first
    base = join + middle
    return [
        (0, lead),
        (lead + first_start, lead + first_stop),
        (join, base),
        (base + second_start, base + second_stop),
        (base + second, base + second + trail),
    ]


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens kept of each text of a pair: the longer one is cut to the length of the other, then both alike.

    `truncate_encodings` of tokenizers/src/utils/truncation.rs, whose rounding this follows.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second)
    longer = room - shorter
    if longer < shorter:
        shorter, longer = room // 2, room - room // 2
    return (longer, shorter) if first > second else (shorter, longer)


def window_chars(tokens_max: int, attempt: int) -> int:
    """Characters to look at in the given attempt, 0 to WINDOWS_MAX - 1."""
    base = max(WINDOW_CHARS_MIN, WINDOW_CHARS_PER_TOKEN * tokens_max)
    return base * int(WINDOW_GROWTH**attempt)


def window(text: str, chars: int, side: Truncation) -> str:
    """The text itself, or the part to look at: `chars` characters and the rest of the word that they end in.

    Where that word is longer than a quarter of the window, or the text has no spaces, the cut falls inside a word.
    """
    reach = chars + chars // 4
    if len(text) <= reach:
        return text
    if side is Truncation.LEFT:
        far, near = len(text) - reach, len(text) - chars
        start = max(text.rfind(" ", far, near), text.rfind("\n", far, near))
        return text[start if start >= 0 else far :]
    space = SPACE.search(text, chars, reach)
    return text[: space.start() if space else reach]


def too_large(tokens: int, tokens_max: int, *, is_cut: bool, thing: str = "input") -> HeddleError:
    """The error for an input that must not be truncated. `is_cut`: it has more tokens than were counted."""
    if tokens <= tokens_max:
        length = "far more characters than can be looked at"
    else:
        length = f"more than {tokens} tokens" if is_cut else f"{tokens} tokens"
    return HeddleError(ErrorKind.TOO_LARGE, f"the {thing} has {length}, the limit is {tokens_max} tokens")


def no_room(tokens_max: int, specials: int) -> HeddleError:
    """The error for a limit that a request sets too low."""
    message = f"a limit of {tokens_max} tokens leaves no room for text: the model adds {specials} special tokens"
    return HeddleError(ErrorKind.INVALID_INPUT, message)


def _side(tokens: int, kept: int, side: Truncation) -> Span:
    kept = min(kept, tokens)
    return (tokens - kept, tokens) if side is Truncation.LEFT else (0, kept)
