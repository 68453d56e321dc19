"""Downloads from a web server: folders and archives, what is resumed and checked, and what goes wrong."""

import base64
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.model_source import locate, name_of
from heddle.remote import downloads
from heddle.rpc.settings import ConfigurationError
from tests.file_server import Fault, FileServer
from tests.heddle.checkpoint.sources.models import (
    CONFIGURATION,
    WEIGHTS,
    WEIGHTS_BYTES,
    files_in,
    write_model,
    write_weights,
)

ANY_WEIGHTS = f"*/{WEIGHTS}"
LOCATE = "import sys; from heddle.checkpoint.model_source import locate; print(locate(sys.argv[1]))"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with FileServer(tmp_path / "site") as server:
        yield server


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write_model(tmp_path / "site" / "minilm")
    return tmp_path / "site"


def pack(site: Path, name: str = "minilm.tar.gz", mode: str = "w:gz") -> Path:
    with tarfile.open(site / name, mode) as tar:  # type: ignore[call-overload]
        tar.add(site / "minilm", "minilm")
    return site / name


def refusal(model: str, revision: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        locate(model, revision)
    line = str(caught.value)
    assert "\n" not in line
    assert "secret" not in line
    return line


def weights_of(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


def test_a_folder_is_read_from_the_pages_that_list_it(site: Path, server: FileServer) -> None:
    assert files_in(locate(f"{server.url}/minilm", with_weights=False)) == CONFIGURATION
    folder = locate(f"{server.url}/minilm/")
    assert files_in(folder) == CONFIGURATION | {WEIGHTS}
    assert weights_of(folder) == weights_of(site / "minilm")


def test_folders_beside_many_files_are_read_too(site: Path, server: FileServer) -> None:
    for index in range(120):
        (site / "minilm" / f"shard-{index}.txt").touch()
    assert files_in(locate(f"{server.url}/minilm", with_weights=False)) > CONFIGURATION


def test_an_archive_is_downloaded_once_and_unpacked(site: Path, server: FileServer) -> None:
    pack(site)
    folder = locate(f"{server.url}/minilm.tar.gz")
    assert weights_of(folder) == weights_of(site / "minilm")
    count = len(server.requests)
    assert locate(f"{server.url}/minilm.tar.gz") == folder
    assert [request.headers["range"] for request in server.requests[count:]] == ["bytes=0-0"]
    assert not list(folder.parents[1].glob("partial*")), "the archive is deleted"


def test_a_changed_archive_makes_a_new_snapshot_and_keeps_the_old_one(site: Path, server: FileServer) -> None:
    pack(site)
    first = locate(f"{server.url}/minilm.tar.gz")
    write_weights(site / "minilm", seed=9)
    pack(site)
    second = locate(f"{server.url}/minilm.tar.gz")
    assert first != second
    assert weights_of(first) != weights_of(second) == weights_of(site / "minilm")


def test_only_the_changed_file_of_a_folder_is_downloaded_again(site: Path, server: FileServer) -> None:
    first = locate(f"{server.url}/minilm")
    write_weights(site / "minilm", seed=9)
    count = len(server.requests)
    second = locate(f"{server.url}/minilm")
    assert first != second
    assert (first / "tokenizer.json").samefile(second / "tokenizer.json")
    whole = [each for each in server.requests[count:] if each.headers.get("range", "bytes=0-0") != "bytes=0-0"]
    assert {each.path for each in whole} == {f"/minilm/{WEIGHTS}"}


def test_a_snapshot_is_found_by_its_revision_without_asking_the_server(site: Path, server: FileServer) -> None:
    folder = locate(f"{server.url}/minilm")
    count = len(server.requests)
    assert locate(f"{server.url}/minilm", folder.name) == folder
    assert len(server.requests) == count
    assert "is not on the hub and has no revision v2" in refusal(f"{server.url}/minilm", "v2")


def test_downloaded_files_are_used_while_the_server_is_unreachable(
    site: Path, server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = locate(f"{server.url}/minilm")
    server.faults.append(Fault("*", status=503, times=-1))
    assert locate(f"{server.url}/minilm") == folder
    assert refusal(f"{server.url}/other") == f"the server of {server.url}/other failed to answer (503): try later"
    (folder / WEIGHTS).unlink()
    assert "failed to answer (503)" in refusal(f"{server.url}/minilm")


@pytest.mark.parametrize(
    "fault",
    [Fault(ANY_WEIGHTS, cut_after=1000, times=2), Fault(ANY_WEIGHTS, status=500), Fault(ANY_WEIGHTS, status=429)],
    ids=["cut", "error", "too many requests"],
)
def test_a_request_that_fails_is_tried_again(site: Path, server: FileServer, fault: Fault) -> None:
    server.faults.append(fault)
    assert weights_of(locate(f"{server.url}/minilm")) == weights_of(site / "minilm")


def test_a_broken_download_is_resumed(site: Path, server: FileServer) -> None:
    archive = pack(site, "minilm.tar", "w")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "BLOCKS_IN_FLIGHT", 1)
        server.faults += [Fault("*.tar", times=4), Fault("*.tar", status=500, times=-1)]  # after the list, three blocks
        assert "failed to answer (500)" in refusal(f"{server.url}/minilm.tar")
    server.faults.clear()
    count = len(server.requests)
    assert weights_of(locate(f"{server.url}/minilm.tar")) == weights_of(site / "minilm")
    parts = [each.headers["range"] for each in server.requests[count + 1 :]]
    assert len(parts) == -(-archive.stat().st_size // downloads.BLOCK_BYTES) - 3
    assert f"bytes={3 * downloads.BLOCK_BYTES}-{4 * downloads.BLOCK_BYTES - 1}" in parts


def test_a_server_without_ranges_sends_the_whole_file(site: Path, server: FileServer) -> None:
    pack(site)
    server.has_ranges = False
    server.faults.append(Fault("*.gz", cut_after=1000, times=2))
    assert weights_of(locate(f"{server.url}/minilm.tar.gz")) == weights_of(site / "minilm")


def test_an_archive_without_a_version_is_identified_by_its_content(site: Path, server: FileServer) -> None:
    pack(site)
    server.has_etags = False
    first = locate(f"{server.url}/minilm.tar.gz")
    assert locate(f"{server.url}/minilm.tar.gz") == first
    write_weights(site / "minilm", seed=9)
    pack(site)
    assert weights_of(locate(f"{server.url}/minilm.tar.gz")) == weights_of(site / "minilm") != weights_of(first)


def test_a_hash_in_the_address_is_checked(site: Path, server: FileServer) -> None:
    digest = server.hash_of(pack(site))
    assert WEIGHTS in files_in(locate(f"{server.url}/minilm.tar.gz#sha256={digest}"))
    server.sent.clear()
    wrong = "0" * 64
    line = refusal(f"{server.url}/minilm.tar.gz#sha256={wrong}")
    assert line.endswith(f"that says sha256 {wrong}, the file has {digest}")
    assert server.sent["/minilm.tar.gz"] == (site / "minilm.tar.gz").stat().st_size + 1, "once, after its first byte"
    assert "is not followed by sha256=" in refusal(f"{server.url}/minilm.tar.gz#sha256=123")


def test_a_file_that_changes_during_the_download_is_never_a_mixture(site: Path, server: FileServer) -> None:
    read = server.answer
    asked: list[str] = []

    def answer(request: object) -> object:
        asked.append(request.path)  # type: ignore[attr-defined]
        if asked.count(f"/minilm/{WEIGHTS}") == 3:
            write_weights(site / "minilm", seed=9)
        return read(request)  # type: ignore[arg-type]

    server.answer = answer  # type: ignore[method-assign, assignment]
    assert refusal(f"{server.url}/minilm").endswith("has changed since it was listed")
    assert weights_of(locate(f"{server.url}/minilm")) == weights_of(site / "minilm")


def test_a_password_goes_to_its_own_host_only(site: Path, server: FileServer) -> None:
    pack(site)
    with FileServer(site) as other:
        target = other.url.replace("127.0.0.1", "localhost")
        headers = {"Location": f"{target}/minilm.tar.gz?Signature=secret"}
        server.faults.append(Fault("*", status=302, headers=headers, times=-1))
        address = f"{server.url.replace('http://', 'http://me:secret@')}/minilm.tar.gz"
        assert WEIGHTS in files_in(locate(address))
        login = base64.b64encode(b"me:secret").decode()
        assert {each.headers.get("authorization") for each in server.requests} == {f"Basic {login}"}
        assert {each.headers.get("authorization") for each in other.requests} == {None}


def test_stated_headers_go_to_their_own_host_only(
    site: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(site)
    own = {server.url: {"Authorization": "Bearer secret", "X-Token": "secret"}, "http://localhost:1": {"X-Token": "b"}}
    monkeypatch.setenv("HEDDLE_WEB_HEADERS", json.dumps(own))
    with FileServer(site) as other:
        assert WEIGHTS in files_in(locate(f"{other.url}/minilm.tar.gz"))
        headers = {"Location": f"{other.url}/minilm.tar.gz"}
        server.faults.append(Fault("*", status=302, headers=headers, times=-1))
        assert WEIGHTS in files_in(locate(f"{server.url}/minilm.tar.gz"))
        for name, expected in (("authorization", "Bearer secret"), ("x-token", "secret")):
            assert {each.headers.get(name) for each in server.requests} == {expected}
            assert {each.headers.get(name) for each in other.requests} == {None}
    monkeypatch.setenv("HEDDLE_WEB_HEADERS", "[]")
    with pytest.raises(ConfigurationError, match="HEDDLE_WEB_HEADERS must be JSON of the form"):
        locate(f"{server.url}/minilm.tar.gz")


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (404, "there is nothing at {}/x.tar (404)"),
        (403, "{}/x.tar may not be read (403): check its password (https://USER:PASSWORD@host/path) or signature"),
        (503, "the server of {}/x.tar failed to answer (503): try later"),
    ],
)
def test_a_refusal_says_what_to_do(site: Path, server: FileServer, status: int, line: str) -> None:
    server.faults.append(Fault("*", status=status, times=-1))
    address = f"{server.url.replace('http://', 'http://me:secret@')}/x.tar?sig=secret"
    assert refusal(address).startswith(line.format(server.url))


def test_an_address_without_a_model_says_what_is_there(site: Path, server: FileServer) -> None:
    (site / "notes.txt").write_text("hello")
    (site / "page").mkdir()
    (site / "page" / "notes.txt").write_text("hello")
    assert "notes.txt is not a tar or zip archive" in refusal(f"{server.url}/notes.txt")
    assert "page holds no model: there is no config.json in it, but notes.txt" in refusal(f"{server.url}/page")
    assert "cannot be reached: " in refusal("http://127.0.0.1:9/x.tar")
    assert "ftp://host/x is not an address that models are loaded from" in refusal("ftp://me:secret@host/x")


def test_a_disk_that_is_too_small_is_noticed_before_the_download(
    site: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "free_bytes", lambda _: 1000)
    line = refusal(f"{server.url}/minilm")
    assert line.startswith(f"downloading {server.url}/minilm needs 30")
    assert line.endswith("has 1.0 kB left: free some, or set HEDDLE_CACHE to a folder on another disk")


def run(address: str, *limit: str) -> subprocess.Popen[str]:
    command = [*limit, sys.executable, "-c", LOCATE, address]
    return subprocess.Popen(command, env=os.environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_write_error_is_reported_in_one_line(site: Path, server: FileServer) -> None:
    """The shell limits the size of a file."""
    _, lines = run(f"{server.url}/minilm", "sh", "-c", 'ulimit -f 100 && exec "$@"', "sh").communicate(timeout=60)
    assert f"no room for {server.url}/minilm in" in lines.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["minilm", "minilm.tar.gz"])
def test_two_processes_download_each_file_once(site: Path, server: FileServer, path: str) -> None:
    pack(site)
    server.faults.append(Fault(f"*{WEIGHTS}" if path == "minilm" else "*.gz", delay_s=0.5, times=-1))
    processes = [run(f"{server.url}/{path}") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert len({output for output, _ in outputs}) == 1, outputs
    assert weights_of(Path(outputs[0][0].strip())) == weights_of(site / "minilm")
    parts = [each.headers.get("range") for each in server.requests if each.path.endswith((WEIGHTS, ".gz"))]
    assert len([part for part in parts if part != "bytes=0-0"]) == 1


def test_an_incomplete_file_of_a_killed_process_is_never_used(site: Path, server: FileServer) -> None:
    server.faults.append(Fault(ANY_WEIGHTS, delay_s=60.0, times=-1))
    process = run(f"{server.url}/minilm")
    while len(server.requested(ANY_WEIGHTS)) < 1:
        assert process.poll() is None
    process.kill()
    process.communicate()
    server.faults.clear()
    assert weights_of(locate(f"{server.url}/minilm")) == weights_of(site / "minilm")


def test_the_name_of_an_address_is_its_last_part() -> None:
    assert name_of("https://me:secret@host/models/minilm.tar.gz?sig=secret") == "minilm"
    assert name_of("s3://bucket/models/minilm/") == "minilm"
    assert name_of("s3://bucket") == "bucket"
    assert name_of("BAAI/bge-m3") == "BAAI/bge-m3"
    assert WEIGHTS_BYTES > downloads.BLOCK_BYTES
