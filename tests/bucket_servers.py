"""Servers on this machine that speak the protocols of S3, Azure and Google Cloud Storage, for the tests of buckets."""

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

AZURITE = "node_modules/.bin/azurite-blob"
# Azurite's only account, as its documentation states it.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

BUCKET = "models"

CREDENTIALS = ("AWS_", "AZURE_", "FSSPEC_", "GOOGLE_", "STORAGE_")


@dataclass(frozen=True, slots=True)
class BucketServer:
    scheme: str
    environ: dict[str, str]
    files: Any  # an fsspec file system that may write

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sets the credentials of the server, and removes all others."""
        forget_credentials(monkeypatch)
        for name, value in self.environ.items():
            monkeypatch.setenv(name, value)

    def address(self, name: str) -> str:
        return f"{self.scheme}://{BUCKET}/{name}"

    def upload(self, folder: Path, name: str) -> str:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                target = f"{BUCKET}/{name}/{path.relative_to(folder).as_posix()}"
                self.files.pipe_file(target, path.read_bytes())
        return self.address(name)


def forget_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(CREDENTIALS):
            monkeypatch.delenv(name)
    monkeypatch.setattr("fsspec.config.conf", {})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve_s3() -> Iterator[BucketServer]:
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    environ = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    urllib.request.urlopen(f"{url}/moto-api/reset", data=b"").close()  # all its servers share their buckets
    files = S3FileSystem(endpoint_url=url, key="key", secret="secret", use_listings_cache=False)
    files.mkdir(BUCKET)
    try:
        yield BucketServer("s3", environ, files)
    finally:
        server.stop()


@contextmanager
def serve_azure() -> Iterator[BucketServer]:
    from adlfs import AzureBlobFileSystem

    program = Path(sys.prefix) / "azurite" / AZURITE
    if not program.exists():
        pytest.skip(f"Azurite is not installed in {program.parents[2]}")
    port = free_port()
    options = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--blobPort", str(port)]
    process = subprocess.Popen([str(program), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
        connection += f"BlobEndpoint={endpoint};"
        files = AzureBlobFileSystem(connection_string=connection, use_listings_cache=False)
        files.mkdir(BUCKET)
        yield BucketServer("az", {"AZURE_STORAGE_CONNECTION_STRING": connection}, files)
    finally:
        process.kill()
        process.wait()


@contextmanager
def serve_gcs() -> Iterator[BucketServer]:
    from gcp_storage_emulator.server import create_server
    from gcsfs.core import GCSFileSystem

    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    url = f"http://127.0.0.1:{port}"
    files = GCSFileSystem(token="anon", project="test", endpoint_url=url, use_listings_cache=False)
    files.mkdir(BUCKET)
    environ = {"STORAGE_EMULATOR_HOST": url, "FSSPEC_GCS": '{"token": "anon"}'}
    try:
        yield BucketServer("gs", environ, files)
    finally:
        server.stop()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"the server ended with {process.returncode}")
