"""`heddle build` as a process, and its result behind `heddle serve`."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from heddle.artifacts.manifest import read_manifest, verify
from heddle.checkpoint.model_source import packaged_folder
from tests.checkpoints import write_old_modules, write_tokenizer
from tests.engine_svc.build.building import read_folder
from tests.engine_svc.models.trained_like import DECODERS, write_decoder
from tests.system.served import served

pytestmark = pytest.mark.slow

TEXTS = ["what is a loom?", "w1 w2", "The heddle guides each thread to its place. " * 20]


async def start(*argv: object, limit_bytes: int = 0, **environ: str) -> asyncio.subprocess.Process:
    """`limit_bytes` is the largest file that the process may write."""
    code = "import sys; from heddle.__main__ import main; main()"
    if limit_bytes:
        code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes},) * 2); {code}"
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "build", *map(str, argv)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ},
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    output, log = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, output.decode(), log.decode()


async def run(*argv: object, **environ: Any) -> tuple[int | None, str, str]:
    return await finish(await start(*argv, **environ))


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def embed(model: str) -> Any:
    async with served("--model", model, "--dtype", "float32") as server, httpx.AsyncClient() as client:
        response = await client.post(f"{server.url}/v1/embeddings", json={"model": model, "input": TEXTS})
    return [item["embedding"] for item in response.raise_for_status().json()["data"]]


def packaged() -> Path:
    folder = packaged_folder()
    assert folder is not None
    return folder


async def test_a_build_of_minilm_is_served_with_the_vectors_of_its_source(tmp_path: Path) -> None:
    code, output, _ = await run("--model", packaged(), "--output", tmp_path / "minilm")
    assert code == 0
    assert re.search(rf"folder +{tmp_path / 'minilm'}", output)
    verify(tmp_path / "minilm", read_manifest(tmp_path / "minilm"))
    assert await embed(str(tmp_path / "minilm")) == await embed(str(packaged()))


async def test_a_build_does_not_depend_on_the_process_the_folder_or_the_threads(tmp_path: Path) -> None:
    roots = [tmp_path / place / "decoder" for place in ("here", "there")]
    for root in roots:
        write_decoder(root, DECODERS[2])
        write_tokenizer(root)
        write_old_modules(root, ["Transformer", "Pooling"], {"pooling_mode_lasttoken": True})
    flags = ("--quantization", "fp4", "--file-gb-max", "0.0005")
    made: list[Awaitable[tuple[int | None, str, str]]] = [
        run("--model", roots[0], "--output", tmp_path / "one", *flags, PYTHONHASHSEED="1", OMP_NUM_THREADS="1"),
        run("--model", roots[1], "--output", tmp_path / "two", *flags, "--cores", "5", PYTHONHASHSEED="2"),
    ]
    assert [code for code, *_ in await asyncio.gather(*made)] == [0, 0]
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "two")
    assert "manifest.json" in read_folder(tmp_path / "one")


def list_names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("when", ["*", "*/model.safetensors"])
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_interrupted_build_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, expected: int, when: str
) -> None:
    process = await start("--model", packaged(), "--output", tmp_path / "minilm")
    await wait_until(lambda: any(tmp_path.glob(when)))
    process.send_signal(number)
    code, output, log = await finish(process)
    assert (code, output) == (expected, "")
    assert "Traceback" not in log
    assert list_names(tmp_path) == []


async def test_a_full_disk_is_reported_in_one_line(tmp_path: Path) -> None:
    code, output, log = await run("--model", packaged(), "--output", tmp_path / "minilm", limit_bytes=1_000_000)
    assert (code, output) == (1, "")
    assert re.fullmatch(rf"heddle build: {tmp_path}/\S+: File too large", log.splitlines()[-1])
    assert list_names(tmp_path) == []
