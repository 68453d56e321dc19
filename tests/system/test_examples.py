"""The examples of the READMEs run against `heddle serve`, and the list of HTTP routes is complete."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.system.served import Served, served

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ROUTES = (ROOT / "http_gateway" / "README.md").read_text()

CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
CURL = re.compile(r"curl http://127\.0\.0\.1:8080(\S+) .*?-d '(.*?)'\n(.*?)\n\n", re.DOTALL)
PATH = re.compile(r"`(?:(?:GET|POST) )?(/[^`]*)`")
EXAMPLE_S_MAX = 60

EXAMPLES = [
    example
    for document in (README, (ROOT / "protos" / "README.md").read_text())
    for example in CODE.findall(document)
    if "ClientTls" not in example  # needs certificates; test_tls.py has the same call
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Served]:
    async with served("--dtype", "float32") as running:
        yield running


@pytest.mark.parametrize("example", EXAMPLES)
async def test_python_runs(server: Served, example: str) -> None:
    example = example.replace("http://127.0.0.1:8080", server.url).replace("127.0.0.1:50051", server.grpc)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", example),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    output, _ = await asyncio.wait_for(process.communicate(), EXAMPLE_S_MAX)
    assert process.returncode == 0
    assert output


async def test_curl_answers_what_is_shown(server: Served) -> None:
    ((path, body, shown),) = CURL.findall(README)
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = (await http.post(path, content=body)).json()
    expected = json.loads(shown)
    assert answer["data"][0].pop("embedding") == pytest.approx(expected["data"][0].pop("embedding"), abs=1e-4)
    assert answer == expected


async def test_every_http_route_is_listed(server: Served) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    assert paths
    assert set(paths) <= set(PATH.findall(ROUTES))
