"""Downloads from buckets of S3, Google and Azure, with their libraries and with servers on this machine."""

import os
import sys
import tarfile
from pathlib import Path

import pytest

from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.model_source import locate
from heddle.checkpoint.sources.buckets import BucketModel
from heddle.remote.addresses import parse_address
from tests.bucket_servers import ACCOUNT, BucketServer, forget_credentials
from tests.heddle.checkpoint.sources.models import CONFIGURATION, WEIGHTS, files_in, write_weights


@pytest.fixture(params=["s3", "gcs", "azure"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    running: BucketServer = request.getfixturevalue(f"{request.param}_server")
    running.use(monkeypatch)
    return running


@pytest.fixture
def s3(s3_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    s3_server.use(monkeypatch)
    return s3_server


def refusal(address: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        locate(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_files_that_are_needed_are_downloaded(server: BucketServer, model: Path, tmp_path: Path) -> None:
    address = server.upload(model, tmp_path.name)
    assert files_in(locate(address, with_weights=False)) == CONFIGURATION
    folder = locate(f"{address}/")
    assert files_in(folder) == CONFIGURATION | {WEIGHTS}
    assert (folder / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def test_a_changed_file_makes_a_new_snapshot(server: BucketServer, model: Path, tmp_path: Path) -> None:
    first = locate(server.upload(model, tmp_path.name))
    write_weights(model, seed=9)
    second = locate(server.upload(model, tmp_path.name))
    assert first != second
    assert (second / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def test_an_archive_in_a_bucket_is_unpacked(server: BucketServer, model: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "minilm.tar.gz", "w:gz") as tar:
        tar.add(model, "minilm")
    (tmp_path / "packed").mkdir()
    (tmp_path / "minilm.tar.gz").replace(tmp_path / "packed" / "minilm.tar.gz")
    folder = locate(f"{server.upload(tmp_path / 'packed', tmp_path.name)}/minilm.tar.gz")
    assert (folder / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def test_a_missing_model_is_named(server: BucketServer, tmp_path: Path) -> None:
    assert refusal(server.address("nothing")) == (
        f"there is nothing at {server.address('nothing')}, or nothing that these credentials may see"
    )
    assert "there is nothing at" in refusal(f"{server.scheme}://no-such-bucket/x")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("hello")
    address = server.upload(tmp_path / "notes", tmp_path.name)
    assert refusal(address) == f"{address} holds no model: there is no config.json in it, but notes.txt"


def test_a_file_that_differs_from_the_listing_is_never_kept(
    server: BucketServer, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = BucketModel.read
    address = server.upload(model, tmp_path.name)

    def damaged(self: BucketModel, file: object, start: int, end: int) -> bytes:
        content = read(self, file, start, end)  # type: ignore[arg-type]
        return bytes([content[0] ^ 1]) + content[1:]

    monkeypatch.setattr(BucketModel, "read", damaged)
    line = refusal(address)
    assert "arrived with a wrong md5" in line or "has changed since it was listed" in line
    monkeypatch.undo()


@pytest.mark.slow
def test_the_hash_of_parts_is_checked_on_s3(s3: BucketServer, model: Path) -> None:
    """A file that was uploaded in parts: its ETag is the hash of their hashes."""
    address = s3.upload(model, "parts")
    content = os.urandom(11 << 20)
    s3.files.pipe_file(f"models/parts/{WEIGHTS}", content, chunksize=5 << 20)
    assert s3.files.info(f"models/parts/{WEIGHTS}")["ETag"].endswith('-3"')
    assert (locate(address) / WEIGHTS).read_bytes() == content
    store = BucketModel(parse_address(address))
    file = next(each for each in store.list_files() if each.path == WEIGHTS)
    assert store.check_etag(file, locate(address) / WEIGHTS)
    (model / WEIGHTS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not store.check_etag(file, model / WEIGHTS)


def test_a_public_bucket_needs_no_credentials(s3: BucketServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = s3.upload(model, "public")
    s3.files.chmod("models", acl="public-read")
    for path in s3.files.find("models/public"):
        s3.files.chmod(path, acl="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(model))
    assert WEIGHTS in files_in(locate(address))


def test_wrong_and_missing_credentials_have_different_errors(
    azure_server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure_server.use(monkeypatch)
    connection = azure_server.environ["AZURE_STORAGE_CONNECTION_STRING"]
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection.replace("Eby8vdM", "AAAAAAA"))
    line = refusal(azure_server.address("m"))
    assert line.startswith("az://models/m may not be read with these credentials: check AZ")


def test_an_unreachable_store_is_needed_only_for_new_files(
    s3: BucketServer, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = s3.upload(model, "away")
    folder = locate(address)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert locate(address) == folder
    line = refusal(s3.address("other"))
    assert line == f"{s3.address('other')} cannot be reached: check the network and the endpoint http://127.0.0.1:9"


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, extra, address in (
        ("s3fs", "s3", "s3://b/m"),
        ("gcsfs.core", "gcs", "gs://b/m"),
        ("adlfs", "azure", "az://b/m"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        assert refusal(address).endswith(f"pip install 'heddle[{extra}]'")


def test_an_address_in_azure_names_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_credentials(monkeypatch)
    assert refusal("az://models/m").endswith("AME, or write https://ACCOUNT.blob.core.windows.net/models/m")
    assert ACCOUNT not in refusal("az://models/m")
