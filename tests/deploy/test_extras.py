"""Each service starts and answers with no other packages than those of its extra, as in its image. In particular,
gateway and tokenizer need no PyTorch."""

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import Distribution, distribution
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from heddle.cli.readiness import http_ready
from tests.deploy.manifests import DEPLOY, ROOT

READY_S_MAX = 120.0
OWN = ("engine_svc", "http_gateway", "tokenizer_svc", "protos/heddle")

Extras = dict[str, list[str]]


def read_extras() -> Extras:
    """Requirements by extra; those of all under ""."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def closure(extra: str) -> dict[str, Distribution]:
    """The installed distributions that `pip install 'heddle[extra]'` would install, except Heddle, by name."""
    own, found = read_extras(), dict[str, Distribution]()
    seen, waiting = set[str](), [f"heddle[{extra}]"]
    while waiting:
        text = waiting.pop()
        if text in seen:
            continue
        seen.add(text)
        requirement = Requirement(text)
        name, extras = re.sub(r"[-_.]+", "-", requirement.name).lower(), requirement.extras
        if name == "heddle":
            waiting += [line for one in ("", *extras) for line in own[one]]
            continue
        found[name] = distribution(name)
        for line in found[name].requires or ():
            marker = Requirement(line).marker
            if marker is None or any(marker.evaluate({"extra": one}) for one in ("", *extras)):
                waiting.append(line.partition(";")[0].strip())
    return found


def install(extra: str, folder: Path) -> None:
    """Links the packages of an extra into a folder, so that a process with this PYTHONPATH sees no others."""
    (folder / "heddle-0.dist-info").mkdir()
    (folder / "heddle-0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: heddle\nVersion: 0\n")
    for package in OWN:
        (folder / Path(package).name).symlink_to(ROOT / package)
    for one in closure(extra).values():
        for file in one.files or ():
            if ".." not in file.parts:
                link(Path(str(one.locate_file(""))), Path(file), folder)


def link(source: Path, file: Path, folder: Path) -> None:
    """Links the outermost package of the file. Several distributions may share a folder that is no package."""
    for prefix in (*reversed(file.parents[:-1]), file):
        if prefix == file or (source / prefix / "__init__.py").exists():
            target = folder / prefix
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() and (source / prefix).exists():
                target.symlink_to(source / prefix)
            return


@contextmanager
def service(module: str, packages: Path, *flags: str) -> Iterator[None]:
    # -S leaves out the packages of this environment.
    process = subprocess.Popen(
        [sys.executable, "-S", "-m", module, *flags],
        env={"PYTHONPATH": str(packages), "PATH": os.environ["PATH"], "HOME": str(packages)},
        cwd=packages,
    )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(READY_S_MAX) == 0


@pytest.mark.parametrize("extra", ["gateway", "tokenizer"])
def test_the_small_images_have_no_pytorch(extra: str) -> None:
    assert not closure(extra).keys() & {"torch", "transformers", "triton", "safetensors"}
    assert "torch" in closure("engine")


@pytest.mark.slow
async def test_services_answer_with_the_packages_of_their_extras(tmp_path: Path) -> None:
    for extra in ("gateway", "tokenizer", "engine"):
        (tmp_path / extra).mkdir()
        install(extra, tmp_path / extra)
    model = f"--model={locate(PACKAGED_NAME)}"
    sockets = {name: f"unix:{tmp_path}/{name}.sock" for name in ("tokenizer", "engine")}
    http = tmp_path / "gateway.sock"
    no_metrics = "--metrics-port=none"  # their usual ports may be in use
    with ExitStack() as running:
        running.enter_context(
            service("engine_svc", tmp_path / "engine", model, f"--listen={sockets['engine']}", no_metrics)
        )
        listen, engines = f"--listen={sockets['tokenizer']}", f"--engines={sockets['engine']}"
        running.enter_context(service("tokenizer_svc", tmp_path / "tokenizer", model, listen, engines, no_metrics))
        flags = ("--port=0", f"--unix-socket={http}", f"--tokenizers={sockets['tokenizer']}")
        running.enter_context(service("http_gateway", tmp_path / "gateway", *flags))
        async with asyncio.timeout(READY_S_MAX):
            while not await http_ready(f"unix:{http}"):
                await asyncio.sleep(0.1)
            assert await healthy(tmp_path / "gateway", f"unix:{http}")
            assert await healthy(tmp_path / "tokenizer", sockets["tokenizer"], "heddle.v1.InferenceService")
            assert await healthy(tmp_path / "engine", sockets["engine"], "heddle.v1.EngineService")
            assert not await healthy(tmp_path / "engine", sockets["engine"], "heddle.v1.InferenceService")
            async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(http))) as client:
                answer = await client.post("http://gateway/v1/embeddings", json={"model": "any", "input": "a text"})
    assert len(answer.json()["data"][0]["embedding"]) == 384


async def healthy(packages: Path, *arguments: str) -> bool:
    """Runs what probes of containers run."""
    script = DEPLOY / "containers/health.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", script, *arguments, env={"PYTHONPATH": str(packages)}
    )
    return await process.wait() == 0
