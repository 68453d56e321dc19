"""Downloads from a hub on this machine by the real huggingface_hub: what is fetched, checked and refused."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.model_source import locate
from heddle.checkpoint.sources import hub as hub_source
from heddle.remote.errors import SECRET_PLACES
from tests.file_server import Fault
from tests.heddle.checkpoint.sources.models import CONFIGURATION, WEIGHTS, files_in, write_model
from tests.hub import Hub

NAME = "owner/name"
BLOB = "/lfs/*"
LOCATE = "import sys; from heddle.checkpoint.model_source import locate; print(locate(sys.argv[1]))"


@pytest.fixture
def hub(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    repositories = {NAME: model, "owner/private": model, "owner/gated": model}
    revisions = {NAME: {"v2": write_model(tmp_path / "v2", seed=2)}}
    tokens = {"reader": {NAME, "owner/private", "owner/gated"}, "stranger": {NAME}}
    with Hub(repositories, revisions=revisions, tokens=tokens, private={"owner/private"}, gated={"owner/gated"}) as hub:
        yield hub.use(monkeypatch)


def refusal(name: str, revision: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        locate(name, revision)
    line = str(caught.value)
    assert "\n" not in line
    assert "?" not in line, "an address with its signature"
    return line


def test_only_files_that_are_needed_are_downloaded(hub: Hub) -> None:
    assert files_in(locate(NAME, with_weights=False)) == CONFIGURATION
    assert not hub.requested(BLOB)
    assert files_in(locate(NAME)) == CONFIGURATION | {WEIGHTS}


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, model: Path) -> None:
    main, v2 = locate(NAME), locate(NAME, "v2")
    assert (main.name, v2.name) == (hub.commit_of(NAME), hub.commit_of(NAME, "v2"))
    assert main.parent == v2.parent
    assert locate(NAME, v2.name) == v2
    assert (main / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert (v2 / "model.safetensors").read_bytes() != (model / "model.safetensors").read_bytes()


def test_a_token_opens_private_and_gated_models(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "reader")
    for name in ("owner/private", "owner/gated"):
        assert files_in(locate(name)) == CONFIGURATION | {WEIGHTS}
    assert not any("authorization" in request.headers for request in hub.requested(BLOB))


REFUSALS = {
    ("owner/nothing", ""): (
        "no public model owner/nothing, and there is no such folder here: check the name; if the model is private, set"
    ),
    ("owner/private", ""): "no public model owner/private, and there is no such folder here: check the name; if",
    ("owner/private", "stranger"): "may read, and there is no such folder here: check the name and",
    ("owner/gated", ""): "owner/gated is gated: ask for access at http://127.0.0.1:",
    ("owner/gated", "stranger"): "owner/gated is gated, and the account of the token in HF_TOKEN may not read it:",
    (NAME, "expired"): "does not accept the token for owner/name: HF_TOKEN is wrong, or the token has expired",
    ("owner/name with spaces", ""): "is neither a folder nor a name on the hub, which is of the form owner/name",
}


@pytest.mark.parametrize(("name", "token"), REFUSALS)
def test_a_refusal_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert REFUSALS[name, token] in refusal(name)


def test_a_refusal_names_the_secret_of_the_config(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    before = SECRET_PLACES.set({"hub": "TRUSS_SECRET_mine"})
    try:
        assert refusal("owner/private").endswith("if the model is private, set TRUSS_SECRET_mine to a token")
        monkeypatch.setenv("HF_TOKEN", "expired")
        assert "TRUSS_SECRET_mine is wrong, or the token has expired" in refusal("owner/private")
    finally:
        SECRET_PLACES.reset(before)


def test_a_missing_revision_is_named(hub: Hub) -> None:
    assert refusal(NAME, "v3") == "owner/name has no revision v3 on the hub"


def test_a_download_that_is_served_while_the_hub_refuses_the_token_says_so(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = locate(NAME)
    monkeypatch.setenv("HF_TOKEN", "expired")
    assert locate(NAME) == folder
    line = f"or the token has expired; serving the download of {folder.name[:12]}"
    assert line in capsys.readouterr().err + caplog.text


def test_an_unreachable_hub_is_needed_only_for_new_files(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = locate(NAME)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert locate(NAME) == folder
    assert refusal("owner/private") == (
        "owner/private is not in the cache, and the hub at http://127.0.0.1:9 cannot be reached: check the network"
    )
    (folder / "model.safetensors").unlink()
    assert "owner/name is not in the cache" in refusal(NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "owner/private is not completely in the hub's cache" in refusal("owner/private")


@pytest.mark.parametrize("pattern", [BLOB, f"/api/models/{NAME}*"])
def test_a_request_that_fails_is_tried_again(hub: Hub, pattern: str) -> None:
    hub.faults.append(Fault(pattern, status=500, times=2))
    assert "model.safetensors" in files_in(locate(NAME))


def test_a_hub_that_keeps_failing_is_named(hub: Hub) -> None:
    hub.faults.append(Fault(BLOB, status=503, times=-1))
    assert refusal(NAME) == "the hub failed to answer a request for owner/name (503): try later"
    assert len(hub.requested(BLOB)) == hub_source.TRIES
    hub.faults[:] = []
    assert "model.safetensors" in files_in(locate(NAME))


def test_a_file_with_a_wrong_hash_is_downloaded_again(hub: Hub, model: Path) -> None:
    hub.faults.append(Fault(BLOB, flips=True))
    folder = locate(NAME)
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert len(hub.requested(BLOB)) == 2


def test_a_file_with_a_wrong_hash_never_stays_in_the_cache(hub: Hub) -> None:
    hub.faults.append(Fault(BLOB, flips=True, times=-1))
    assert "model.safetensors of owner/name arrived with a wrong hash, 4 times" in refusal(NAME)
    assert not [path for path in hub.home.rglob("*") if path.is_file() and path.stat().st_size == 300_000]


@pytest.mark.slow
def test_a_broken_download_is_resumed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.faults.append(Fault(BLOB, cut_after=150_000))
    locate(NAME)
    first, second = hub.requested(BLOB)
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=150000-"


def test_a_full_disk_says_how_to_use_another(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    line = refusal(NAME)
    assert line.startswith(f"no room for owner/name in {hub.home}/hub (")
    assert line.endswith("free some, or set HF_HOME to a folder on another disk")


def run(hub: Hub, *limit: str) -> subprocess.Popen[str]:
    environ = {**os.environ, **hub.environ}
    command = [*limit, sys.executable, "-c", LOCATE, NAME]
    return subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_write_error_is_reported_in_one_line(hub: Hub) -> None:
    """The shell limits the size of a file."""
    _, lines = run(hub, "sh", "-c", 'ulimit -f 100 && exec "$@"', "sh").communicate(timeout=60)
    assert "no room for owner/name" in lines.strip().splitlines()[-1]


@pytest.mark.slow
def test_two_processes_download_each_file_once(hub: Hub, model: Path) -> None:
    hub.faults.append(Fault(BLOB, delay_s=1.0))
    processes = [run(hub), run(hub)]
    outputs = [process.communicate(timeout=60) for process in processes]
    folders = {Path(output.strip()) for output, _ in outputs}
    assert len(folders) == 1
    assert (folders.pop() / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert len(hub.requested(BLOB)) == 1
    assert all("it/s" not in lines for _, lines in outputs), "a bar without a terminal"
