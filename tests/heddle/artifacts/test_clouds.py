"""Stores in Azure and Google Cloud Storage, on servers of this machine that speak their protocols."""

from pathlib import Path

import pytest

from heddle.artifacts.artifact_cache import ArtifactCache
from heddle.artifacts.store import Store
from heddle.remote.errors import StoreError
from tests.bucket_servers import BucketServer
from tests.heddle.artifacts.artifact import FILES, REQUEST, make_bytes, read_files, write_artifact

# The libraries of the clouds pass whole chunks to aiohttp, which warns about it.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")]


@pytest.mark.parametrize("cloud", ["azure", "gcs"])
def test_a_build_that_is_published_to_a_cloud_can_be_fetched(
    cloud: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = tmp_path / "artifact"
    write_artifact(artifact, {**FILES, "large": make_bytes(9_000_000), "empty": b""})
    server: BucketServer = request.getfixturevalue(f"{cloud}_server")
    server.use(monkeypatch)
    store = Store.at(server.address("builds"))
    assert store.find(REQUEST.key) is None
    assert store.publish(artifact, [REQUEST]).blobs == 5
    assert store.publish(artifact, [REQUEST]).blobs == 0
    digest = store.find(REQUEST.key)
    assert digest
    assert read_files(ArtifactCache(tmp_path / "cache").fetch(store, digest, name="a")) == read_files(artifact)
    store.check_place(may_be_new=False)
    elsewhere = Store.at(server.address("builds").replace("models", "elsewhere"))
    with pytest.raises(StoreError, match="there is no bucket elsewhere"):
        elsewhere.check_place(may_be_new=True)
    with pytest.raises(StoreError, match="cannot be written: there is no such bucket"):
        elsewhere.publish(artifact, [])
