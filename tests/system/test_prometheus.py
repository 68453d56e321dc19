"""A real Prometheus scrapes all three services under load, and answers queries about them."""

import asyncio
import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.metrics import free_port
from tests.prometheus import prometheus, query

MODEL = 'model="sentence-transformers/all-MiniLM-L6-v2"'
PASS_S = 0.01  # of the simulated engine
CALLERS = 4

# Longer than the test: rates are those of all its requests.
WINDOW = "[5m]"
ANSWER_S_MAX = 30.0

# By query: the least and the greatest value that is plausible.
QUERIES: Mapping[str, tuple[float, float]] = {
    "sum(up)": (3, 3),
    "count(count by (service, version) (heddle_build_info))": (3, 3),
    f'sum(increase(heddle_gateway_request_seconds_count{{status="200",{MODEL}}}{WINDOW}))': (1, 1e6),
    f"histogram_quantile(0.99, sum by (le) (rate(heddle_gateway_request_seconds_bucket{WINDOW})))": (1e-4, 60),
    f"sum(increase(heddle_gateway_tokens_total{WINDOW}))": (7, 1e7),
    f'histogram_quantile(0.5, sum by (le) (rate(heddle_tokenizer_stage_seconds_bucket{{stage="compute"}}{WINDOW})))': (
        *(PASS_S / 2, 10),
    ),
    f'sum by (task) (increase(heddle_tokenizer_requests_total{{outcome="ok"}}{WINDOW}))': (1, 1e6),
    f"sum(increase(heddle_engine_pass_seconds_sum{WINDOW}) / increase(heddle_engine_pass_seconds_count{WINDOW}))": (
        *(PASS_S / 2, 10),
    ),
    f"increase(heddle_engine_batch_fill_ratio_sum{WINDOW}) / increase(heddle_engine_batch_fill_ratio_count{WINDOW})": (
        *(0.001, 1),
    ),
    f"max_over_time(heddle_engine_queue_age_seconds{WINDOW})": (0, 60),
    f"max_over_time(heddle_engine_running_requests{WINDOW})": (1, CALLERS),
    f"max(histogram_quantile(0.99, rate(heddle_process_event_loop_lag_seconds_bucket{WINDOW})))": (1e-5, 60),
    'sum(heddle_rpc_pods{state="connected"})': (2, 2),
    f"sum(increase(te_request_count{WINDOW}))": (1, 1e6),
    f"histogram_quantile(0.5, rate(te_batch_next_size_bucket{WINDOW}))": (0.5, 2 * CALLERS),
}


async def query_until_sane(http: httpx.AsyncClient, promql: str) -> None:
    """Asks until there are enough samples for an answer within its bounds."""
    least, most = QUERIES[promql]
    answer = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_S_MAX):
            while (answer := await query(http, promql)) is None or not least <= answer <= most:
                await asyncio.sleep(0.2)
    assert answer is not None, f"no answer to {promql}"
    assert least <= answer <= most, promql


async def send_load(url: str) -> None:
    """Sends requests until it is cancelled."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        while True:
            await http.post("/v1/embeddings", json={"input": ["warp and weft", "loom"]})


async def check_exposition(url: str) -> None:
    """Asserts that `promtool check metrics` accepts the metrics."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{url}/metrics")).content
    process = await asyncio.create_subprocess_exec(
        *("promtool", "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(b"".join(line for line in text.splitlines(True) if b"te_" not in line[:12]))
    assert (process.returncode, output.decode()) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("prometheus") or not shutil.which("promtool"), reason="no Prometheus here")
async def test_prometheus_scrapes_all_services_and_answers_queries(tmp_path: Path) -> None:
    engine_port, tokenizer_port = free_port(), free_port()
    async with (
        engine_pod(
            tmp_path, simulated_fixed_us=int(1e6 * PASS_S), metrics_port=engine_port, tei_metrics=True
        ) as engine,
        tokenizer_pod(tmp_path, engine, metrics_port=tokenizer_port, tei_metrics=True) as tokenizer,
        gateway(tokenizer) as url,
    ):
        targets = {
            "gateway": url.removeprefix("http://"),
            "tokenizer": f"127.0.0.1:{tokenizer_port}",
            "engine": f"127.0.0.1:{engine_port}",
        }
        load = [asyncio.create_task(send_load(url)) for _ in range(CALLERS)]
        try:
            async with prometheus(tmp_path, targets) as http:
                for promql in QUERIES:
                    await query_until_sane(http, promql)
        finally:
            for task in load:
                task.cancel()
        for target in targets.values():
            await check_exposition(f"http://{target}")
