"""Where socket folders are made, and which are removed. Their owners are real processes."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from heddle.cli.socket_folder import ADDRESS_BYTES_MAX, LOCK, PREFIX, SocketFolder, find_parents, socket_folder
from heddle.rpc.settings import ConfigurationError

OWNER = """
import sys, time
from pathlib import Path
from heddle.cli.socket_folder import SocketFolder
print(SocketFolder(Path(sys.argv[1])).path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path. Those of pytest are too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="sockets-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def owner(parent: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    command = (sys.executable, "-c", OWNER, str(parent))
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_live_one_stays(
    owner: tuple[subprocess.Popen[str], Path],
) -> None:
    process, folder = owner
    (folder / "engine-0").touch()
    with socket_folder({}):
        assert (folder / "engine-0").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with socket_folder({}) as own:
        assert not folder.exists()
        assert own.path.parent == folder.parent
    assert not own.path.exists()


def test_only_folders_with_our_lock_are_removed(parent: Path) -> None:
    unlocked = parent / f"{PREFIX}0"
    unlocked.mkdir()
    elsewhere = parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LOCK).touch()
    link = parent / f"{PREFIX}1"
    link.symlink_to(elsewhere)
    file = parent / f"{PREFIX}2"
    file.touch()
    linked_lock = parent / f"{PREFIX}3"
    linked_lock.mkdir()
    (linked_lock / LOCK).symlink_to(elsewhere / LOCK)
    abandoned = parent / f"{PREFIX}4"
    abandoned.mkdir()
    (abandoned / LOCK).touch()
    with socket_folder({}):
        pass
    assert sorted(parent.iterdir()) == [elsewhere, unlocked, link, file, linked_lock]


def test_folders_of_other_users_are_left_alone(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = parent / f"{PREFIX}0"
    foreign.mkdir()
    (foreign / LOCK).touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        with socket_folder({}):
            assert foreign.exists()
    with socket_folder({}):
        assert not foreign.exists()


def test_the_runtime_folder_is_preferred_if_it_is_the_users_own_and_short(parent: Path) -> None:
    runtime = parent / "run"
    runtime.mkdir(mode=0o700)
    with socket_folder({"XDG_RUNTIME_DIR": str(runtime)}) as folder:
        assert folder.path.parent == runtime
        assert folder.path.stat().st_mode & 0o777 == 0o700
    long = parent / ("r" * 80)
    long.mkdir()
    for unusable in ("", "run", str(parent / "none"), str(long), "/"):
        if unusable != "/" or os.geteuid():
            with socket_folder({"XDG_RUNTIME_DIR": unusable}) as folder:
                assert folder.path.parent == parent
                assert len(os.fsencode(folder.path / "engine-1000")) <= ADDRESS_BYTES_MAX


def test_abandoned_folders_among_the_temporary_files_are_removed_too(parent: Path) -> None:
    abandoned = parent / f"{PREFIX}0"
    abandoned.mkdir()
    (abandoned / LOCK).touch()
    runtime = parent / "run"
    runtime.mkdir()
    with socket_folder({"XDG_RUNTIME_DIR": str(runtime)}):
        assert not abandoned.exists()


def test_without_a_writable_folder_the_error_names_the_variables(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert find_parents({}) == []
    with pytest.raises(ConfigurationError, match="XDG_RUNTIME_DIR"), socket_folder({}):
        pass


def test_a_start_never_removes_the_folder_of_another(parent: Path) -> None:
    """Another process may look at a folder before its lock is held."""

    def start(number: int) -> None:
        for _ in range(20):
            folder = SocketFolder(parent)
            with socket_folder({}):
                assert folder.path.exists(), number
            folder.remove()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(start, range(4)))
    assert not any(parent.iterdir())
