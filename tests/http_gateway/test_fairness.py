"""The single query of one caller is in the engine's next batch while another caller has 256 requests in flight."""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from engine_svc.servicer import EngineServicer
from heddle.rpc.waiting import poll_until
from tests.cluster import engine_pod, gateway, tokenizer_pod

REQUESTS = 256
BATCH = 4
QUERY = "a query that is longer than any other text here"


class GatedBackend:
    """A simulated backend whose batches wait while the gate is closed. Records the token count of each sequence."""

    def __init__(self) -> None:
        self._simulated = SimulatedBackend(fixed_us=0, per_token_ns=0)
        self.outputs, self.data_type = self._simulated.outputs, self._simulated.data_type
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[int]] = []

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        self.batches.append(batch.lengths.tolist())
        self.gate.wait(30)
        return self._simulated.run(batch)

    def close(self) -> None:
        self.gate.set()


@pytest.mark.parametrize(
    ("settings", "many", "few"),
    [
        ({"api_keys": ("one", "two")}, {"authorization": "Bearer one"}, {"authorization": "Bearer two"}),
        ({"api_keys": ("one",)}, {"x-heddle-flow": "ann"}, {"x-heddle-flow": "bob"}),
        ({"trusted_proxies": 1}, {"x-forwarded-for": "192.0.2.1"}, {"x-forwarded-for": "192.0.2.2"}),
        ({"api_keys": ("one",)}, {"x-heddle-priority": "1"}, {}),
    ],
    ids=["keys", "users of a key", "addresses", "priorities"],
)
async def test_a_single_query_is_in_the_next_batch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    many: dict[str, str],
    few: dict[str, str],
) -> None:
    arrived: list[str] = []
    submit = EngineServicer.submit

    def submit_and_record(self: EngineServicer, item: Any, *others: Any) -> Any:
        arrived.append(item.context.flow)
        return submit(self, item, *others)

    monkeypatch.setattr(EngineServicer, "submit", submit_and_record)
    backend = GatedBackend()
    keys = {"authorization": "Bearer one"} if "api_keys" in settings else {}
    limits = httpx.Limits(max_connections=REQUESTS + 8)
    async with (
        engine_pod(tmp_path, backend, batch_items_max=BATCH) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer, **settings) as url,
        httpx.AsyncClient(base_url=url, timeout=60, limits=limits, headers=keys) as http,
    ):
        backend.gate.clear()
        backend.batches.clear()
        bulk = [
            asyncio.create_task(http.post("/v1/embeddings", json={"input": str(number)}, headers=many))
            for number in range(REQUESTS)
        ]
        async with asyncio.timeout(30):
            await poll_until(lambda: len(arrived) == REQUESTS and bool(backend.batches))
        query = asyncio.create_task(http.post("/v1/embeddings", json={"input": QUERY}, headers=few))
        async with asyncio.timeout(30):
            await poll_until(lambda: len(arrived) == REQUESTS + 1)
        await asyncio.sleep(0)  # the engine schedules what arrived in this turn of the event loop in the next one
        begun = len(backend.batches)
        backend.gate.set()
        assert (await query).status_code == 200
        assert {response.status_code for response in await asyncio.gather(*bulk)} == {200}
    place = next(place for place, batch in enumerate(backend.batches) if max(batch) > 6)
    assert place == begun
    assert "Bearer" not in "".join(arrived)
