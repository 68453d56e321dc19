"""Encodes texts and pairs that may be too long to show to the tokenizer as a whole.

A long text must not cost more than the part of it that is kept, so the tokenizer sees only a window of characters.
Cutting a text at a space can change only the tokens next to the cut. The result stands if the window gave MARGIN_TOKENS
more tokens than can be kept; otherwise the next attempt takes a larger window.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import tokenizers

from heddle.rpc.errors import HeddleError
from tokenizer_svc.text.batch_encoding import encode_each
from tokenizer_svc.text.fitting import SequenceFitter
from tokenizer_svc.text.inputs import Options, Text
from tokenizer_svc.text.sequences import Alignment, Result, TokenSequence, pack_ids, pack_type_ids
from tokenizer_svc.text.truncation import Truncation

MARGIN_TOKENS = 128  # more than WordPiece makes of its longest word (100 characters)
WINDOW_CHARS_PER_TOKEN = 10  # English has 4 to 5
WINDOW_CHARS_MIN = 2048
WINDOW_GROWTH = 8
WINDOWS_MAX = 3  # what the third window leaves out counts as cut off, however few tokens the window gave

SPACE = re.compile(r"[ \n]")

T = TypeVar("T")


def encode_in_windows(
    inputs: Mapping[int, T], encode: Callable[[Mapping[int, T], int], Mapping[int, Result]]
) -> dict[int, Result]:
    """Calls `encode(inputs, attempt)` with those inputs that have no result yet. It returns the results of the inputs
    for which the windows of this attempt are large enough, and of all of them at the last attempt."""
    results: dict[int, Result] = {}
    for attempt in range(WINDOWS_MAX):
        if pending := {key: content for key, content in inputs.items() if key not in results}:
            results |= encode(pending, attempt)
    return results


def window_chars(tokens_max: int, attempt: int) -> int:
    base = max(WINDOW_CHARS_MIN, WINDOW_CHARS_PER_TOKEN * tokens_max)
    return base * int(WINDOW_GROWTH**attempt)


def take_window(text: str, chars: int, side: Truncation) -> str:
    """The text itself, or the part to look at: `chars` characters and the rest of the word that they end in.

    If that rest is longer than a quarter of the window, the cut falls inside the word.
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


@dataclass(slots=True)
class TextWindow:
    """The part of a text or pair that the tokenizer sees."""

    text: Text  # the prompt included
    options: Options
    tokens_max: int  # tokens to keep, special tokens included
    cuts: tuple[bool, ...] = ()  # whether something was left out, per text; empty if nothing was
    skipped: int = 0  # characters of a single text before the window

    @classmethod
    def take(cls, text: Text, options: Options, tokens_max: int, chars: int) -> "TextWindow":
        if isinstance(text, str):
            whole = options.prompt + text
            shown = take_window(whole, chars, options.truncation)
            left_out = len(whole) - len(shown)
            skipped = left_out if options.truncation is Truncation.LEFT else 0
            return cls(shown, options, tokens_max, (True,) if left_out else (), skipped)
        first, second = options.prompt + text[0], text[1]
        pair = take_window(first, chars, options.truncation), take_window(second, chars, options.truncation)
        cuts = len(pair[0]) < len(first), len(pair[1]) < len(second)
        return cls(pair, options, tokens_max, cuts if any(cuts) else ())

    @property
    def is_pair(self) -> bool:
        return isinstance(self.text, tuple)

    def suffices(self, encoding: tokenizers.Encoding) -> bool:
        """Whether what was left out cannot change the tokens that are kept."""
        if not self.cuts:
            return True
        needed = self.tokens_max + MARGIN_TOKENS
        if not self.is_pair:
            return len(encoding) >= needed
        sequence_ids = encoding.sequence_ids
        return all(sequence_ids.count(number) >= needed for number, is_cut in enumerate(self.cuts) if is_cut)


@dataclass(frozen=True, slots=True)
class LongTextEncoder:
    library: tokenizers.Tokenizer
    fitter: SequenceFitter
    gives_type_ids: bool

    def encode(self, texts: Mapping[int, tuple[Text, Options]]) -> dict[int, Result]:
        """Results by the keys of `texts`."""
        return encode_in_windows(texts, self._encode_windows)

    def _encode_windows(self, texts: Mapping[int, tuple[Text, Options]], attempt: int) -> dict[int, Result]:
        windows = self._take_windows(texts.values(), attempt)
        # The library's faster call gives the same ids without offsets.
        with_alignment = any(window.options.with_alignment for window in windows)
        encode_batch = self.library.encode_batch if with_alignment else self.library.encode_batch_fast
        encodings = encode_each([window.text for window in windows], encode_batch)
        results: dict[int, Result] = {}
        for key, window, encoding in zip(texts, windows, encodings, strict=True):
            if isinstance(encoding, HeddleError):
                results[key] = encoding
            elif attempt + 1 == WINDOWS_MAX or window.suffices(encoding):
                results[key] = self._to_result(encoding, window)
        return results

    def _take_windows(self, texts: Iterable[tuple[Text, Options]], attempt: int) -> list[TextWindow]:
        """Windows are larger for texts that may be refused, so that the error can state how long they are."""
        windows: list[TextWindow] = []
        seen: Options | None = None  # the texts of a request share their options
        for text, options in texts:
            if options is not seen:
                seen, tokens_max = options, options.limit(self.fitter.sequence_tokens_max)
                is_refused = options.truncation is Truncation.REFUSE
                chars = window_chars(tokens_max, max(attempt, 1) if is_refused else attempt)
            windows.append(TextWindow.take(text, options, tokens_max, chars))
        return windows

    def _to_result(self, encoding: tokenizers.Encoding, window: TextWindow) -> Result:
        has_type_ids = self.gives_type_ids and (window.is_pair or self.fitter.special_tokens.has_type_ids)
        sequence = TokenSequence(pack_ids(encoding.ids), pack_type_ids(encoding.type_ids) if has_type_ids else b"")
        if window.options.with_alignment:
            sequence.alignment = Alignment.from_encoding(encoding, window.skipped)
        is_cut = bool(window.cuts)
        return self.fitter.fit_text(sequence, encoding, window.options, is_pair=window.is_pair, is_cut=is_cut)
