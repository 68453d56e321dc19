"""The progress of a download is a bar on a terminal, and lines elsewhere."""

import logging
import re
import sys
from weakref import WeakSet

import pytest
from tqdm import tqdm

from heddle import progress
from heddle.progress import Progress, logged_bar, say, spelled_size


@pytest.fixture(autouse=True)
def line_for_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest sets up logging, as a service does, and `heddle serve` does not."""
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(logging.Logger, "hasHandlers", lambda _: False)


def test_lines_show_the_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("downloading m", total=2_000, done=500) as shown:
        shown.add(500)
    line, last = capsys.readouterr().err.splitlines()
    assert line == "heddle: downloading m: 1.0 kB of 2.0 kB (50%)"
    assert re.fullmatch(r"heddle: downloading m: 1\.0 kB in \d+\.\d s", last)
    with Progress("unpacking m", total=0) as shown:
        shown.add(7)
    assert capsys.readouterr().err.startswith("heddle: unpacking m: 7 bytes\n")
    with Progress("calibrating", total=8, unit="texts") as shown:
        shown.add(4)
    assert capsys.readouterr().err.startswith("heddle: calibrating: 4 texts of 8 texts (50%)\n")


def test_a_terminal_has_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(tqdm, "_instances", WeakSet())  # without the bars that other tests have left open
    with Progress("downloading m", total=2_000) as shown:
        shown.add(1_000)
        assert "downloading m:" in capsys.readouterr().err
    assert capsys.readouterr().err.count("heddle: ") == 1, "only the line at the end"


def test_services_log_the_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.Logger, "hasHandlers", lambda _: True)
    with caplog.at_level(logging.INFO):
        say("another process is downloading m")
    assert caplog.messages == ["another process is downloading m"]


def test_huggingface_hub_gets_lines_for_the_bytes_that_arrive(capsys: pytest.CaptureFixture[str]) -> None:
    made = logged_bar("downloading owner/name")
    with made(desc="Fetching 2 files", total=2) as files, made(desc="Downloading bytes", total=0, unit="B") as arrived:
        arrived.total = 4_000
        arrived.update(1_000)
        arrived.refresh()
        files.update(1)
        files.refresh()
    lines = set(capsys.readouterr().err.splitlines())
    assert "heddle: downloading owner/name: 1.0 kB of 4.0 kB (25%)" in lines
    assert not any("Fetching" in line or "it/s" in line for line in lines)


def test_sizes_are_short() -> None:
    assert [spelled_size(count) for count in (999, 1_234_567, 4.2e9)] == ["999 bytes", "1.2 MB", "4.2 GB"]
