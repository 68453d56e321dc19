"""Processes of the previous version and of this one serve together, whichever tier is upgraded first.

The previous version is taken from the repository's history; without it, as in a shallow clone, these tests are skipped.
tests/contract has the tests that need no history.
"""

import asyncio
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest

from heddle.cli.readiness import grpc_ready, http_ready
from tests.cluster import ENGINE, TOKENIZER
from tests.system.proxied import NO_METRICS, ROOT, SIMULATED, Pod, stop

PREVIOUS = "a9f5268188652dd2ab55bdffbd9739368dff39d9"

REQUESTS = {
    "/v1/embeddings": {"model": "any", "input": ["warp", "weft"]},
    "/embed_all": {"inputs": ["warp"]},
    "/tokenize": {"inputs": "warp"},
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the previous version."""
    folder = tmp_path_factory.mktemp("previous")
    archive = subprocess.run(["git", "archive", PREVIOUS], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the history lacks {PREVIOUS[:7]}")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


@pytest.mark.parametrize("new", [("tokenizer_svc",), ("http_gateway", "engine_svc")], ids=" and ".join)
async def test_both_versions_serve_together(tmp_path: Path, previous: Path, new: tuple[str, ...]) -> None:
    """Each tier of one version calls the other version, and is called by it."""
    sockets = {name: f"unix:{tmp_path}/{name}" for name in ("engine_svc", "tokenizer_svc", "http_gateway")}
    engine, tokenizer, gateway = sockets.values()
    flags = {
        "engine_svc": ("--listen", engine, *SIMULATED, *NO_METRICS),
        "tokenizer_svc": ("--listen", tokenizer, "--engines", engine, *NO_METRICS),
        "http_gateway": ("--port", "0", "--unix-socket", gateway.removeprefix("unix:"), "--tokenizers", tokenizer),
    }
    ready = {
        "engine_svc": partial(grpc_ready, engine, ENGINE),
        "tokenizer_svc": partial(grpc_ready, tokenizer, TOKENIZER),
        "http_gateway": partial(http_ready, gateway),
    }
    pods = [
        Pod(
            name,
            (sys.executable, "-m", name, *flags[name], "--log-level", "warning"),
            ready[name],
            tmp_path / f"{name}.log",
            ROOT if name in new else previous,
        )
        for name in sockets
    ]
    try:
        for pod in pods:
            await pod.start()
        for pod in pods:
            await pod.wait_ready()
        transport = httpx.AsyncHTTPTransport(uds=gateway.removeprefix("unix:"))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=30) as http:
            for path, body in REQUESTS.items():
                answers = await asyncio.gather(*(http.post(path, json=body) for _ in range(10)))
                assert {answer.status_code for answer in answers} == {200}, path
    finally:
        await asyncio.gather(*map(stop, pods))
    assert [pod.log.read_text() for pod in pods] == ["", "", ""]
