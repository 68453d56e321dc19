"""Sample texts: built in or from a file, some of them held out from calibration."""

from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from engine_svc.build.sample_texts import join_tokens, read_sample_texts
from heddle.rpc.settings import ConfigurationError
from tests.texts import varied_texts


def write_lines(path: Path, count: int) -> Path:
    path.write_text("".join(f"text number {index}\n" for index in range(count)))
    return path


def test_built_in_texts_are_many_distinct_and_of_all_lengths() -> None:
    texts = read_sample_texts()
    found = [*texts.calibration, *texts.held_out]
    assert len(found) == len(set(found)) >= 250
    sizes = sorted(map(len, found))
    assert sizes[0] <= 5
    assert sizes[-1] >= 1500
    assert sum(1 for text in found if not text.isascii()) >= 80
    assert sum(1 for text in found if "(" in text and "=" in text) >= 10


def test_comparison_and_calibration_share_no_texts(tmp_path: Path) -> None:
    for path in (None, write_lines(tmp_path / "texts", 40)):
        texts = read_sample_texts(path)
        assert len(texts.held_out) >= 5
        assert not set(texts.held_out) & set(texts.calibration)


def test_the_number_of_texts_limits_calibration_only(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "texts", 200)
    texts = read_sample_texts(path, count=64)
    assert texts.calibration[:8] == [f"text number {index}" for index in (0, 1, 2, 3, 4, 5, 6, 8)]
    assert len(texts.calibration) == 64
    assert texts.held_out == read_sample_texts(path).held_out
    assert len(read_sample_texts(write_lines(path, 5000)).held_out) == 128


def test_lines_may_hold_any_text_and_end_as_on_windows(tmp_path: Path) -> None:
    """U+2028 is part of a text. A byte order mark is not."""
    lines = [text.strip() for text in varied_texts(40) if text.strip() and "\n" not in text]
    lines.append("one\u2028line with\u0085 separators\x0b of Unicode")
    path = tmp_path / "texts"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(lines).encode())
    texts = read_sample_texts(path)
    assert {*texts.calibration, *texts.held_out} == set(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no text"),
        (b" \n\n\t\n", "has no text"),
        (b"only one\n" * 100, r"1 different texts are too few for calibration \(at least 16\)"),
        (b"caf\xe9\n", "is not UTF-8: byte 3"),
    ],
)
def test_an_unusable_file_raises_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "texts"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_sample_texts(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="texts: No such file or directory"):
        read_sample_texts(tmp_path / "texts")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        read_sample_texts(tmp_path)


@dataclass
class Columns:
    token_ids: bytes
    lengths: "array[int]"
    prompt_tokens: "array[int]"
    type_ids: bytes = b""
    errors: dict[int, Exception] = field(default_factory=dict)


def test_rejected_texts_are_left_out_of_sequences() -> None:
    ids = np.array([5, 6, 7, 8, 9], "<u4")
    failed: dict[int, Exception] = {1: ValueError("the text has no tokens")}
    columns = Columns(ids.tobytes(), array("I", [2, 0, 3]), array("I", [1, 0, 1]), bytes([0, 1, 0, 0, 1]), failed)
    texts, sequences = join_tokens(["one", "字", "two"], columns)
    assert texts == ["one", "two"]
    assert sequences.token_ids.tolist() == ids.tolist()
    assert sequences.lengths.tolist() == [2, 3]
    assert sequences.type_ids_or_zeros().tolist() == [0, 1, 0, 0, 1]
    assert sequences.options.prompt_tokens == 1


def test_rejecting_all_texts_raises_one_clear_error() -> None:
    columns = Columns(b"", array("I", [0]), array("I", [0]), errors={0: ValueError("the text has no tokens")})
    with pytest.raises(ConfigurationError, match="no text for calibration can be tokenized: the text has no tokens"):
        join_tokens(["字"], columns)
