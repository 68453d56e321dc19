"""Killed processes, and processes that run at the same time, share a store and a cache without damage."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heddle.artifacts.artifact_cache import ArtifactCache
from heddle.artifacts.manifest import hash_file
from heddle.artifacts.store import Store
from heddle.rpc.waiting import poll_until
from tests.file_server import Fault, FileServer
from tests.heddle.artifacts.artifact import REQUEST, make_bytes, read_files, write_artifact

pytestmark = pytest.mark.slow

SCRIPTS = {
    "fetch": """
import sys
from pathlib import Path
from heddle.artifacts.artifact_cache import ArtifactCache
from heddle.artifacts.store import Store
from heddle.remote import downloads
downloads.BLOCK_BYTES, downloads.BLOCKS_IN_FLIGHT = 1 << 16, 2
address, cache, key = sys.argv[1:]
store = Store.at(address)
print(ArtifactCache(Path(cache)).fetch(store, store.find(key), name="a"))
""",
    # Stops in the middle of the second file.
    "publish": """
import sys, time
from pathlib import Path
from fsspec.implementations.local import LocalFileSystem
from heddle.artifacts import store
from tests.file_server import Fault, FileServer
from tests.heddle.artifacts.artifact import REQUEST
put_file, count = LocalFileSystem.put_file, []
def put_half(self, old, new, **options):
    count.append(new)
    if len(count) == 2:
        Path(new).write_bytes(Path(old).read_bytes()[:10])
        print("ready", flush=True)
        time.sleep(60)
    put_file(self, old, new, **options)
LocalFileSystem.put_file, store.UPLOADS_AT_ONCE = put_half, 1
store.Store.at(sys.argv[1]).publish(Path(sys.argv[2]), [REQUEST])
""",
}


@contextmanager
def started(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Kills the process at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPTS[script], *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "artifact", {f"part-{index}": make_bytes(300_000, seed=index) for index in range(4)})
    return tmp_path / "artifact"


def count_blobs(web: FileServer) -> int:
    """Bytes of blobs that were sent."""
    return sum(count for path, count in web.sent.items() if path.startswith("/blobs/"))


async def test_a_killed_fetch_is_resumed(artifact: Path, tmp_path: Path) -> None:
    Store.at(str(tmp_path / "store")).publish(artifact, [REQUEST])
    blob = f"*/{hash_file(artifact / 'part-2')}"
    with FileServer(tmp_path / "store") as web:
        web.faults.append(Fault(blob, delay_s=60.0, times=-1))
        with started("fetch", web.url, tmp_path / "cache", REQUEST.key):
            async with asyncio.timeout(30):
                await poll_until(lambda: len(web.requested(blob)) == 2)  # everything before this blob has been written
        web.faults.clear()
        assert ArtifactCache(tmp_path / "cache").find(REQUEST.key) is None
        store = Store.at(web.url)
        digest = store.find(REQUEST.key)
        assert digest
        web.sent.clear()
        folder = ArtifactCache(tmp_path / "cache").fetch(store, digest, name="a")
        assert read_files(folder) == read_files(artifact)
        assert count_blobs(web) == 600_000


async def test_readers_do_not_see_what_a_killed_publisher_left(artifact: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "store")
    with started("publish", address, artifact) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    store = Store.at(address)
    assert store.find(REQUEST.key) is None
    assert len(list((tmp_path / "store" / "blobs" / "sha256").iterdir())) == 1
    published = store.publish(artifact, [REQUEST])
    assert published.blobs == 3
    folder = ArtifactCache(tmp_path / "cache").fetch(store, published.digest, name="a")
    assert read_files(folder) == read_files(artifact)


async def test_processes_on_one_cache_fetch_once(artifact: Path, tmp_path: Path) -> None:
    Store.at(str(tmp_path / "store")).publish(artifact, [REQUEST])
    with FileServer(tmp_path / "store") as web:
        arguments = ("fetch", web.url, tmp_path / "cache", REQUEST.key)
        with started(*arguments) as first, started(*arguments) as second:
            outputs = [process.communicate()[0].splitlines()[-1] for process in (first, second)]
        assert outputs[0] == outputs[1]
        assert read_files(Path(outputs[0])) == read_files(artifact)
        assert count_blobs(web) == 1_200_000
