"""Publishing and fetching, with a folder, a bucket (moto speaks S3), and a web server as the store."""

import hashlib
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from heddle.artifacts.artifact_cache import ArtifactCache
from heddle.artifacts.build_key import BuildRequest
from heddle.artifacts.manifest import ManifestError, read_manifest, verify
from heddle.artifacts.store import Published, Store, blob_path
from heddle.checkpoint.json_files import CheckpointError
from heddle.remote import downloads
from heddle.remote.errors import StoreError
from tests.bucket_servers import BucketServer
from tests.file_server import Fault, FileServer
from tests.heddle.artifacts.artifact import FILES, REQUEST, make_bytes, read_files, write_artifact

BLOCK = 1 << 16
BLOBS = "/blobs/*"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes small files have several blocks, and makes pauses short."""
    monkeypatch.setattr(downloads, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(downloads, "FIRST_WAIT_S", 0.01)


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "s3":
        server: BucketServer = request.getfixturevalue("s3_server")
        server.use(monkeypatch)
        return server.address(tmp_path.name)
    if request.param == "memory":  # any other file system of fsspec
        return f"memory://{tmp_path.name}"
    return str(tmp_path / "store") if request.param == "folder" else (tmp_path / "store").as_uri()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact with an empty, a small and a large file, and two files with the same content."""
    files = {**FILES, "empty": b"", "large": make_bytes(5 * BLOCK + 7), "copy/config.json": FILES["config.json"]}
    write_artifact(tmp_path / "artifact", files)
    return tmp_path / "artifact"


def cache_in(folder: Path) -> ArtifactCache:
    return ArtifactCache(folder / "cache", tell=lambda _: None)


def fetch(address: str, cache: ArtifactCache, request: BuildRequest = REQUEST) -> Path:
    store = Store.at(address)
    digest = store.find(request.key)
    assert digest
    return cache.fetch(store, digest, name="owner/name")


def test_a_published_build_can_be_fetched(address: str, artifact: Path, tmp_path: Path) -> None:
    store = Store.at(address)
    assert store.find(REQUEST.key) is None
    published = store.publish(artifact, [REQUEST])
    assert (published.blobs, store.find(REQUEST.key)) == (5, published.digest)
    folder = fetch(address, cache_in(tmp_path))
    assert read_files(folder) == read_files(artifact)
    verify(folder, read_manifest(folder))
    assert not list((tmp_path / "cache" / "partial").iterdir())


def test_only_missing_blobs_are_uploaded(address: str, artifact: Path, tmp_path: Path) -> None:
    store = Store.at(address)
    first = store.publish(artifact, [])
    assert store.publish(artifact, [REQUEST]) == Published(first.digest, 0, 0)
    other = tmp_path / "other"
    write_artifact(other, {**FILES, "large": b"other"})
    assert store.publish(other, []).blobs == 1


def test_a_ref_points_to_the_latest_build(address: str, artifact: Path, tmp_path: Path) -> None:
    store, other = Store.at(address), tmp_path / "other"
    write_artifact(other, {"config.json": b"[]"})
    pinned = BuildRequest("owner/name", "c" * 40, REQUEST.settings)
    old = store.publish(artifact, [REQUEST, pinned])
    new = store.publish(other, [REQUEST])
    assert (store.find(REQUEST.key), store.find(pinned.key)) == (new.digest, old.digest)


def test_several_publishers_may_write_at_once(address: str, artifact: Path, tmp_path: Path) -> None:
    folders = [artifact, *(Path(shutil.copytree(artifact, tmp_path / f"copy-{index}")) for index in range(3))]
    with ThreadPoolExecutor(len(folders)) as pool:
        digests = {one.digest for one in pool.map(lambda folder: Store.at(address).publish(folder, [REQUEST]), folders)}
    assert len(digests) == 1
    assert read_files(fetch(address, cache_in(tmp_path))) == read_files(artifact)


def test_a_folder_that_changed_is_not_published(artifact: Path, tmp_path: Path) -> None:
    content = bytearray((artifact / "large").read_bytes())
    content[0] ^= 1
    (artifact / "large").write_bytes(content)
    store = Store.at(str(tmp_path / "store"))
    with pytest.raises(ManifestError, match="large differs from its hash"):
        store.publish(artifact, [REQUEST])
    assert store.find(REQUEST.key) is None
    assert not (tmp_path / "store" / "manifests").exists()


def test_shared_files_are_downloaded_once(artifact: Path, tmp_path: Path) -> None:
    cache, other = cache_in(tmp_path), tmp_path / "other"
    request = BuildRequest("owner/other", "", {})
    write_artifact(other, {"large": (artifact / "large").read_bytes(), "more": b"more"})
    publisher = Store.at(str(tmp_path / "store"))
    publisher.publish(artifact, [REQUEST])
    publisher.publish(other, [request])
    with FileServer(tmp_path / "store") as web:
        first = fetch(web.url, cache)
        requests = web.requested(BLOBS)
        assert len(requests) == 6 + 3  # the blocks of the large file; the empty one is not asked for
        second = fetch(web.url, cache, request)
        assert len(web.requested(BLOBS)) == len(requests) + 1
        assert (first / "large").stat().st_ino == (second / "large").stat().st_ino
        assert fetch(web.url, cache) == first


def test_a_damaged_copy_in_the_cache_is_not_shared(artifact: Path, tmp_path: Path) -> None:
    cache, other, address = cache_in(tmp_path), tmp_path / "other", str(tmp_path / "store")
    write_artifact(other, {"large": (artifact / "large").read_bytes(), "more": b"more"})
    request = BuildRequest("owner/other", "", {})
    Store.at(address).publish(artifact, [REQUEST])
    Store.at(address).publish(other, [request])
    first = fetch(address, cache)
    (first / "large").chmod(0o644)
    (first / "large").write_bytes(make_bytes((artifact / "large").stat().st_size, seed=1))
    assert (fetch(address, cache, request) / "large").read_bytes() == (artifact / "large").read_bytes()


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def web(request: pytest.FixtureRequest, artifact: Path, tmp_path: Path) -> Iterator[FileServer]:
    """A web server whose store holds the artifact."""
    Store.at(str(tmp_path / "store")).publish(artifact, [REQUEST])
    with FileServer(tmp_path / "store") as server:
        server.has_ranges = request.param
        yield server


def test_a_web_server_is_enough_to_fetch(web: FileServer, artifact: Path, tmp_path: Path) -> None:
    assert read_files(fetch(web.url, cache_in(tmp_path))) == read_files(artifact)
    with pytest.raises(StoreError, match="is read-only"):
        Store.at(web.url).publish(artifact, [])


def test_cut_answers_are_resumed(web: FileServer, artifact: Path, tmp_path: Path) -> None:
    web.faults = [Fault(BLOBS, cut_after=count) for count in (1000, 3, 0)] + [Fault("*", status=503, times=2)]
    assert read_files(fetch(web.url, cache_in(tmp_path))) == read_files(artifact)
    assert not any(fault.times for fault in web.faults)


def test_an_interrupted_fetch_is_resumed(web: FileServer, artifact: Path, tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    large = f"/{blob_path(hashlib.sha256((artifact / 'large').read_bytes()).hexdigest())}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "BLOCKS_IN_FLIGHT", 1)
        web.faults += [Fault(large, times=3), Fault(large, status=503, times=-1)]
        with pytest.raises(StoreError, match="503") if web.has_ranges else nullcontext():
            fetch(web.url, cache)
    web.faults.clear()
    web.sent.clear()
    assert read_files(fetch(web.url, cache)) == read_files(artifact)
    if web.has_ranges:
        assert web.sent[large] == 2 * BLOCK + 7


def test_a_damaged_blob_is_asked_for_twice_and_named(web: FileServer, artifact: Path, tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    place = blob_path(hashlib.sha256(FILES["model.safetensors"]).hexdigest())
    (tmp_path / "store" / place).write_bytes(bytes(len(FILES["model.safetensors"])))
    with pytest.raises(StoreError, match=r"holds a damaged copy of model\.safetensors: delete blobs/sha256") as caught:
        fetch(web.url, cache)
    assert "\n" not in str(caught.value)
    assert len(web.requested(f"/{place}")) == 2
    # Publishing again repairs it, once it is deleted.
    (tmp_path / "store" / place).unlink()
    Store.at(str(tmp_path / "store")).publish(artifact, [])
    assert read_files(fetch(web.url, cache)) == read_files(artifact)


def test_a_blob_that_was_cut_is_named(web: FileServer, artifact: Path, tmp_path: Path) -> None:
    place = blob_path(hashlib.sha256(FILES["model.safetensors"]).hexdigest())
    (tmp_path / "store" / place).write_bytes(b"weig")
    with pytest.raises(
        StoreError, match=f"{place}.*: publish the build again" if web.has_ranges else "after 4 of 7000"
    ):
        fetch(web.url, cache_in(tmp_path))
    # Publishing again repairs it.
    assert Store.at(str(tmp_path / "store")).publish(artifact, []).blobs == 1
    assert read_files(fetch(web.url, cache_in(tmp_path))) == read_files(artifact)


def test_a_blob_that_is_gone_is_named(web: FileServer, tmp_path: Path) -> None:
    (tmp_path / "store" / blob_path(hashlib.sha256(FILES["config.json"]).hexdigest())).unlink()
    with pytest.raises(StoreError, match=r"has lost blobs/sha256/\w+: publish"):
        fetch(web.url, cache_in(tmp_path))


def test_threads_and_processes_that_ask_at_once_fetch_once(web: FileServer, artifact: Path, tmp_path: Path) -> None:
    start = threading.Barrier(3)

    def run(_: int) -> Path:
        start.wait()
        return fetch(web.url, cache_in(tmp_path))

    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(run, range(3)))
    assert len(folders) == 1
    sizes = {f"/{blob_path(entry.sha256)}": entry.size for entry in read_manifest(artifact).files if entry.size}
    assert {path: count for path, count in web.sent.items() if path.startswith("/blobs/")} == sizes


def test_a_full_disk_is_reported_in_one_line(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "store")
    Store.at(address).publish(artifact, [REQUEST])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match=r"owner/name .*needs \d+\.\d kB, and the disk of .* has 1\.0 kB"):
        fetch(address, cache_in(tmp_path))


def test_a_damaged_manifest_is_named(artifact: Path, tmp_path: Path) -> None:
    digest = Store.at(str(tmp_path / "store")).publish(artifact, [REQUEST]).digest
    with (tmp_path / "store" / "manifests" / f"{digest}.json").open("a") as file:
        file.write(" ")
    with pytest.raises(StoreError, match=f"manifests/{digest}.json is damaged"):
        fetch(str(tmp_path / "store"), cache_in(tmp_path))
    with pytest.raises(StoreError, match="has no build 000"):
        Store.at(str(tmp_path / "store")).read_manifest("0" * 64)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format_version": 9}', '{"format_version": 1, "manifest": ".."}']
)
def test_a_ref_that_cannot_be_used_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / f"{REQUEST.key}.json").write_text(content)
    with pytest.raises(StoreError, match=f"refs/{REQUEST.key}"):
        Store.at(str(tmp_path)).find(REQUEST.key)


def test_a_bucket_that_does_not_exist_is_refused(s3_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_server.use(monkeypatch)
    address = s3_server.address("builds")
    Store.at(address).check_place(may_be_new=False)
    with pytest.raises(StoreError, match="there is no bucket nowhere"):
        Store.at("s3://nowhere/builds").check_place(may_be_new=True)
