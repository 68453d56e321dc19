"""Sample texts for calibration and comparison: built-in ones, or the lines of a file. `heddle build` reads and
tokenizes them; `calibration` and `comparison` run them in batches. Imports no torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine_svc.sequences import Options, Output, PackedBatch, Sequences
from heddle.rpc.settings import ConfigurationError

BUILT_IN = Path(__file__).with_name("texts.md")

# How many consecutive built-in texts are joined to make longer ones.
JOINED = (4, 16)

# Fewer texts miss the largest inputs of a model.
TEXTS_MIN = 16

# One text in this many is kept for the comparison and not used for calibration.
HELD_OUT_EVERY = 8

# With more texts, the comparison would take longer than the build.
HELD_OUT_MAX = 128

# Most tokens of a batch, except of a single longer text.
BATCH_TOKENS = 2048

Progress = Callable[[int], None]  # called by any thread with the number of texts just finished


@dataclass(frozen=True, slots=True)
class SampleTexts:
    calibration: Sequence[str]
    held_out: Sequence[str]


class TokenColumns(Protocol):
    """Tokenized texts: columns with one value for each text or for each token."""

    @property
    def token_ids(self) -> bytes: ...  # uint32
    @property
    def lengths(self) -> Sequence[int]: ...
    @property
    def prompt_tokens(self) -> Sequence[int]: ...
    @property
    def type_ids(self) -> bytes: ...  # uint8, or empty
    @property
    def errors(self) -> Mapping[int, Exception]: ...  # by the index of the text, which then has no tokens


def read_sample_texts(path: Path | None = None, count: int = 1024) -> SampleTexts:
    """Reads the lines of `path`, or the built-in texts if it is None. Skips blank lines. At most `count` texts are for
    calibration. Raises ConfigurationError."""
    lines = read_lines(BUILT_IN if path is None else path)
    if path is None:
        lines += [" ".join(lines[start : start + size]) for size in JOINED for start in range(0, len(lines), size)]
    texts = list(dict.fromkeys(lines))
    if len(texts) < TEXTS_MIN:
        found = f"{len(texts)} different texts"
        raise ConfigurationError(f"{path}: {found} are too few for calibration (at least {TEXTS_MIN})")
    held_out = texts[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    left_out = set(held_out)
    return SampleTexts([text for text in texts if text not in left_out][:count], held_out[:HELD_OUT_MAX])


def read_lines(path: Path) -> list[str]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8: byte {error.start}") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    # Not splitlines(), because a text may contain other Unicode line separators.
    lines = [line.strip() for line in content.split("\n")]
    found = [line for line in lines if line]
    if not found:
        raise ConfigurationError(f"{path} has no text")
    return found


def join_tokens(texts: Sequence[str], columns: TokenColumns) -> tuple[Sequence[str], Sequences]:
    """Returns texts and tokens for `calibrate` and `compare`, without texts that the tokenizer rejected, such as those
    in an unknown script. Raises ConfigurationError if it rejected all."""
    kept = [index for index in range(len(texts)) if index not in columns.errors]
    if not kept:
        raise ConfigurationError(f"no text for calibration can be tokenized: {columns.errors[0]}")
    types = np.frombuffer(columns.type_ids, np.uint8) if columns.type_ids else None
    options = Options(Output.VECTOR, prompt_tokens=max(columns.prompt_tokens, default=0))
    sequences = Sequences.of(np.frombuffer(columns.token_ids, "<u4"), np.array(columns.lengths), types, options)
    return [texts[index] for index in kept], sequences.take(np.array(kept))


@dataclass(frozen=True, slots=True)
class TextBatch:
    indices: npt.NDArray[np.intp]  # of its texts in the whole list
    packed: PackedBatch


def make_batches(sequences: Sequences, tokens_max: int = 0) -> list[TextBatch]:
    """Sorts texts by length, because attention computes texts of equal length together. The batches do not depend on
    the hardware. `tokens_max` overrides BATCH_TOKENS."""
    lengths, tokens_max = sequences.lengths, tokens_max or BATCH_TOKENS
    parts: list[list[int]] = []
    tokens = tokens_max
    for index in np.argsort(lengths, kind="stable").tolist():
        length = int(lengths[index])
        if tokens + length > tokens_max:
            parts.append([])
            tokens = 0
        parts[-1].append(index)
        tokens += length
    return [TextBatch(chosen, PackedBatch.of([sequences.take(chosen)])) for chosen in map(np.array, parts)]
