"""Builds appear atomically, and temporary folders of killed processes are removed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heddle.artifacts.manifest import NAME as MANIFEST
from heddle.cli.output_folder import replace_folder, temporary_folder
from tests.engine_svc.build.building import read_folder

HOLD = """
import sys, time
from pathlib import Path
from heddle.cli.output_folder import temporary_folder
with temporary_folder(Path(sys.argv[1])) as place:
    (place / "half").write_text("x")
    print(place.name, flush=True)
    time.sleep(60)
"""


def test_folders_of_killed_processes_are_removed_and_those_of_running_ones_kept(tmp_path: Path) -> None:
    output = tmp_path / "output"
    other = tmp_path / ".output.notes"
    other.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, output],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(2)
    ]
    try:
        killed, running = [process.stdout.readline().strip() for process in processes if process.stdout]
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait(10)
        with temporary_folder(output) as place:
            assert {path.name for path in tmp_path.iterdir()} == {place.name, running, other.name}
            assert killed != running
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_the_new_build_replaces_the_earlier_one(tmp_path: Path) -> None:
    output = tmp_path / "output"
    for content in ("one", "two"):
        with temporary_folder(output) as place:
            (place / "file").write_text(content)
            replace_folder(output, place)
        assert read_folder(tmp_path) == {"output/file": content.encode()}


@pytest.mark.parametrize("is_mount", [False, True])
def test_an_existing_empty_folder_is_filled_in_place(
    tmp_path: Path, is_mount: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted volume cannot be renamed, and its parent may be on another disk."""
    monkeypatch.setattr(Path, "is_mount", lambda self: is_mount)
    output = tmp_path / "output"
    output.mkdir()
    (output / ".output.0123456789abcdef").mkdir()  # of a process that was killed
    node = output.stat().st_ino
    for content in ("one", "two") if is_mount else ("one",):
        with temporary_folder(output) as place:
            assert place.parent == output
            (place / "folder").mkdir()
            for name in (MANIFEST, "file", f"only-{content}", "folder/file"):
                (place / name).write_text(content)
            replace_folder(output, place)
        names = {MANIFEST, "file", f"only-{content}", "folder/file"}
        assert read_folder(tmp_path) == {f"output/{name}": content.encode() for name in names}
    assert output.stat().st_ino == node
    assert {path.name for path in tmp_path.iterdir()} == {"output"}


def test_an_earlier_build_stays_if_the_new_one_cannot_be_moved(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / "file").write_text("one")
    with pytest.raises(FileNotFoundError):
        replace_folder(output, tmp_path / "nowhere")
    assert read_folder(tmp_path) == {"output/file": b"one"}
