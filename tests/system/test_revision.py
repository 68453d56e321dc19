"""`heddle serve --revision` serves this revision of a hub model, and reads no other. The hub's cache stands in for
the hub."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import httpx
import pytest

from heddle.checkpoint.model_source import locate
from tests.kinds import write_classifier
from tests.system.served import served

pytestmark = pytest.mark.slow

NAME = "nobody/versioned"
MAIN, TAGGED = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with a checkpoint without a config at `main`, and a classifier at `v2`."""
    repository = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(MAIN)
    (repository / "refs" / "v2").write_text(TAGGED)
    (repository / "snapshots" / MAIN).mkdir(parents=True)
    (repository / "snapshots" / MAIN / "README.md").touch()
    write_classifier(repository / "snapshots" / TAGGED)
    return tmp_path


@pytest.mark.parametrize("revision", ["v2", TAGGED])
async def test_all_services_load_the_revision_that_is_named(cache: Path, revision: str) -> None:
    flags = ("--model", NAME, "--revision", revision, "--engine", "simulated")
    async with (
        served(*flags, HF_HOME=str(cache), HF_HUB_OFFLINE="1") as heddle,
        httpx.AsyncClient(base_url=heddle.url) as http,
    ):
        info = (await http.get("/info")).json()
        assert (info["model_id"], info["model_sha"]) == (NAME, TAGGED)
        assert len((await http.post("/predict", json={"inputs": "a"})).json()) == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--model", NAME), f"snapshots/{MAIN}"),
        (("--model", NAME, "--revision", "v3"), NAME),
        (("--model", "FOLDER", "--revision", "v2"), "is a folder and has no revision v2"),
    ],
)
async def test_a_revision_that_cannot_be_served_is_reported(cache: Path, flags: tuple[str, ...], words: str) -> None:
    folder = cache / "folder"
    shutil.copytree(locate("sentence-transformers/all-MiniLM-L6-v2", with_weights=False), folder)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heddle", "serve", "--engine", "simulated"),
        *(str(folder) if flag == "FOLDER" else flag for flag in flags),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"},
    )
    _, log = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, words in log.decode()) == (2, True), log.decode()
