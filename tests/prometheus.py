"""A real Prometheus that scrapes services of a test. Called by the tests of metrics and of deploy/monitoring."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.metrics import free_port


def write_config(folder: Path, targets: Mapping[str, str], rules: Path | None) -> Path:
    jobs = [
        {
            "job_name": job,
            "static_configs": [{"targets": [target]}],
            "scrape_interval": "500ms",
            "scrape_timeout": "500ms",
        }
        for job, target in targets.items()
    ]
    config = folder / "prometheus.yml"
    content = {
        "global": {"evaluation_interval": "500ms"},
        "rule_files": [str(rules)] if rules else [],
        "scrape_configs": jobs,
    }
    config.write_text(json.dumps(content))  # JSON is YAML
    return config


@asynccontextmanager
async def prometheus(
    folder: Path, targets: Mapping[str, str], rules: Path | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of a Prometheus that scrapes the targets, each under the name of its job."""
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        *(f"--config.file={write_config(folder, targets, rules)}", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address={address}", "--log.level=error"),
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}") as http:
            async with asyncio.timeout(30):
                while not await is_ready(http):
                    await asyncio.sleep(0.1)
            yield http
    finally:
        process.terminate()
        await process.wait()


async def is_ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/-/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def ask(http: httpx.AsyncClient, promql: str) -> list[float]:
    """The values of an instant query."""
    answer = (await http.get("/api/v1/query", params={"query": promql})).json()
    assert answer["status"] == "success", (promql, answer)
    return [float(result["value"][1]) for result in answer["data"]["result"]]


async def query(http: httpx.AsyncClient, promql: str) -> float | None:
    """The value, if there is only one."""
    values = await ask(http, promql)
    return values[0] if len(values) == 1 else None
