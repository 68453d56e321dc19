"""`heddle build` warns of settings without effect."""

from pathlib import Path

import pytest

from heddle.cli.build_settings import read_build_settings
from heddle.cli.building import find_unused_texts


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ((), "--calibration-texts has no effect without --quantization"),
        (
            ("--quantization", "weights_int8", "--no-report"),
            "--calibration-texts has no effect: weights_int8 needs no calibration, and there is no report",
        ),
        (("--quantization", "weights_int8"), ""),
        (("--quantization", "smooth_quant", "--no-report"), ""),
    ],
)
def test_texts_without_effect_are_named(tmp_path: Path, flags: tuple[str, ...], line: str) -> None:
    settings = read_build_settings(["--model", "a", "--calibration-texts", str(tmp_path / "texts"), *flags], {}, {})
    assert find_unused_texts(settings) == line
