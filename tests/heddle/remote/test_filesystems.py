"""Requests to a failing store are tried again a limited number of times."""

from pathlib import Path

import pytest
from google.auth.exceptions import DefaultCredentialsError

from heddle.remote import filesystems
from heddle.remote.addresses import parse_store_address
from heddle.remote.errors import StoreError
from heddle.remote.filesystems import FileSystem
from tests.bucket_servers import ACCOUNT, ACCOUNT_KEY, forget_credentials
from tests.file_server import Fault, FileServer

AZURE = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={{}}/{ACCOUNT};"


@pytest.mark.parametrize(
    ("address", "environ"),
    [
        ("gs://models/m", {"STORAGE_EMULATOR_HOST": "{}", "FSSPEC_GCS": '{{"token": "anon"}}'}),
        ("az://models/m", {"AZURE_STORAGE_CONNECTION_STRING": AZURE}),
    ],
    ids=["gcs", "azure"],
)
def test_the_libraries_try_again_as_often_as_they_are_told(
    address: str, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default, they take more than a minute to report that a store cannot be reached."""
    monkeypatch.setattr(filesystems, "RETRIES", 1)
    forget_credentials(monkeypatch)
    with FileServer(tmp_path) as server:
        server.faults = [Fault("*", method=method, status=503, times=-1) for method in ("GET", "HEAD")]
        for name, value in environ.items():
            monkeypatch.setenv(name, value.format(server.url))
        with pytest.raises(StoreError):
            FileSystem(parse_store_address(address)).read("cat_file", "models/m/config.json")
        assert len(server.requests) == 2


def test_missing_google_credentials_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """gcsfs would ask Google's metadata server again, which takes half a minute on other machines."""
    asked: list[str] = []

    def find_none(*_: object, **__: object) -> None:
        asked.append("default")
        raise DefaultCredentialsError("none")  # type: ignore[no-untyped-call]

    forget_credentials(monkeypatch)
    monkeypatch.setattr("google.auth.default", find_none)
    monkeypatch.setattr("gcsfs.credentials.GoogleCredentials._connect_cloud", lambda _: asked.append("cloud"))
    assert FileSystem(parse_store_address("gs://models/m")).files.credentials.method == "anon"
    assert asked == ["default"]
