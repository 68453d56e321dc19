"""`heddle serve` takes a build from a store without the hub, or from the cache, or makes it."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.checkpoints import write_bert, write_old_modules, write_tokenizer
from tests.file_server import FileServer
from tests.hub import Hub
from tests.system.served import served

pytestmark = pytest.mark.slow

NAME = "owner/small"
NO_HUB = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_bert(folder)
    write_tokenizer(folder)
    write_old_modules(folder, ["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True})
    return folder


async def ask(url: str, **body: Any) -> dict[str, Any]:
    """Returns the answer to a text, with `info`."""
    async with httpx.AsyncClient(base_url=url) as http:
        answer = await http.post("/v1/embeddings", json={"input": "w1 w2 w3", **body})
        info = await http.get("/info")
    return {**answer.raise_for_status().json(), "info": info.raise_for_status().json()}


async def heddle(*arguments: str, **variables: str) -> tuple[int | None, str]:
    """Returns the exit code and the output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heddle", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode()


async def test_a_pod_starts_from_the_store_alone_and_then_from_its_cache(checkpoint: Path, tmp_path: Path) -> None:
    flags, store = ("--model", NAME, "--dtype", "float32"), tmp_path / "store"
    with Hub({NAME: checkpoint}) as hub:
        commit = hub.commit_of(NAME)
        environ = {**hub.environ, "HEDDLE_CACHE": str(tmp_path / "builder")}
        code, said = await heddle("build", *flags, "--store", str(store), **environ)
        assert code == 0, said
    pod = {**NO_HUB, "HF_HOME": str(tmp_path / "empty"), "HEDDLE_CACHE": str(tmp_path / "pod")}
    with FileServer(store) as web:
        async with served(*flags, "--revision", commit, "--store", web.url, **pod) as server:
            first = await ask(server.url, model=NAME)
        assert (first["model"], first["info"]["model_sha"]) == (NAME, commit)
        asked = [request.path for request in web.requested("/blobs/*")]
        assert sorted(asked) == sorted(f"/blobs/sha256/{blob.name}" for blob in (store / "blobs" / "sha256").iterdir())
    async with served(*flags, "--revision", commit, "--store", web.url, **pod) as server:
        assert (await ask(server.url))["data"] == first["data"]


async def test_serve_builds_a_format_that_needs_calibration(checkpoint: Path, tmp_path: Path) -> None:
    flags = ("--model", str(checkpoint), "--quantization", "smooth_quant", "--store", str(tmp_path / "store"))
    variables = {"HEDDLE_CACHE": str(tmp_path / "cache"), "HEDDLE_BUILD_CALIBRATION_SIZE": "4"}
    async with served(*flags, "--publish", **variables) as server:
        answer = await ask(server.url)
    assert answer["model"] == str(checkpoint)
    assert len(answer["data"][0]["embedding"]) == 32
    assert len(list((tmp_path / "store" / "manifests").iterdir())) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--store", "http://127.0.0.1:9/builds"),
            "http://127.0.0.1:9/builds cannot be reached: ",
        ),
        (("--store", "STORE"), f"{NAME} is not in the cache, and the hub at http://127.0.0.1:9 cannot be reached"),
    ],
)
async def test_a_mistake_is_reported_in_one_line(flags: tuple[str, ...], words: str, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    code, said = await heddle(
        *("serve", "--model", NAME, *(str(tmp_path / "store") if flag == "STORE" else flag for flag in flags)),
        **NO_HUB,
        HF_HOME=str(tmp_path),
        HEDDLE_CACHE=str(tmp_path / "cache"),
    )
    assert (code, words in said, said.count("\n")) == (2, True, 1), said


async def test_a_build_that_fails_says_why_once(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    code, said = await heddle(
        *("serve", "--model", str(checkpoint), "--quantization", "fp8", "--store", str(tmp_path / "store")),
        HEDDLE_CACHE=str(tmp_path / "cache"),
    )
    assert (code, said.count("is for decoders")) == (2, 1), said
    assert not list((tmp_path / "cache" / "partial").iterdir())
