"""The metrics of an engine pod, after known work and during it."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.metrics import measure_device_memory
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from heddle.client import Client
from heddle.rpc.errors import HeddleError
from tests.cluster import engine_pod, tokenizer_pod
from tests.engine_svc.submissions import make_scheduler, several, single, take_next
from tests.metrics import Scrape, free_port, scrape

WORDS = ("warp", "silk", "reed", "wool")  # of three tokens each, with the special ones; that of reed is 7305


class GatedBackend:
    """A simulated backend whose passes wait until the gate is open. It fails on batches with this token."""

    def __init__(self, broken_token: int = -1) -> None:
        self._simulated = SimulatedBackend(fixed_us=0, per_token_ns=0)
        self.outputs, self.data_type = self._simulated.outputs, self._simulated.data_type
        self._broken_token = broken_token
        self.gate = threading.Event()
        self.gate.set()

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        self.gate.wait(20)
        if (batch.token_ids == self._broken_token).any():
            raise RuntimeError("broken")
        return self._simulated.run(batch)

    def close(self) -> None:
        self.gate.set()


@asynccontextmanager
async def pods(folder: Path, backend: GatedBackend, **settings: Any) -> AsyncIterator[tuple[Client, str]]:
    """Yields a client of a tokenizer pod, and the URL of the metrics of its engine pod."""
    port = free_port()
    async with (
        engine_pod(folder, backend, metrics_port=port, **settings) as engine,
        tokenizer_pod(folder, engine) as address,
        Client(address) as client,
    ):
        yield client, f"http://127.0.0.1:{port}"


async def scrape_until(url: str, holds: Callable[[Scrape], bool]) -> Scrape:
    async with asyncio.timeout(10):
        while not holds(scraped := await scrape(url)):
            await asyncio.sleep(0.01)
        return scraped


async def test_computed_sequences_are_counted(tmp_path: Path) -> None:
    async with pods(tmp_path, GatedBackend(), batch_tokens_max=40, tei_metrics=True) as (client, url):
        await client.vectors([*WORDS, "warp"])
        await client.vectors(["silk"])
        scraped = await scrape(url)
    values = {
        "submissions_total": 2,
        "submission_seconds_count": 2,
        "queue_seconds_count": 2,
        "pass_seconds_count": 2,
        "batch_tokens_sum": 18,
        "batch_sequences_sum": 6,
        "batch_tokens_max": 40,
        "sequences_total": 6,
        "tokens_total": 18,
        "duplicate_sequences_total": 1,
        "duplicate_tokens_total": 3,
        "failed_sequences_total": 0,
        "queued_requests": 0,
        "queue_age_seconds": 0,
        "running_passes": 0,
    }
    assert {name: scraped.value(f"heddle_engine_{name}") for name in values} == values
    assert scraped.value("heddle_engine_submissions_total", outcome="ok") == 2
    assert scraped.value("heddle_engine_batch_fill_ratio_sum") == pytest.approx(15 / 40 + 3 / 40)
    assert scraped.value("heddle_engine_batch_sequences_bucket", le="4.0") == 1
    assert (scraped.value("te_batch_next_size_sum"), scraped.value("te_batch_next_tokens_count")) == (6, 2)
    assert scraped.value("heddle_build_info", service="engine", backend="simulated", dtype="float32") == 1


async def test_the_queue_is_measured_and_cancelled_sequences_are_counted(tmp_path: Path) -> None:
    backend = GatedBackend()
    async with pods(tmp_path, backend) as (client, url):
        backend.gate.clear()
        running = asyncio.create_task(client.vectors(["warp", "silk"]))
        await scrape_until(url, lambda scraped: scraped.value("heddle_engine_running_requests") == 1)
        cancelled = asyncio.create_task(client.vectors(list(WORDS)))
        waiting = asyncio.create_task(client.vectors(["wool"]))
        scraped = await scrape_until(url, lambda scraped: scraped.value("heddle_engine_queued_requests") == 2)
        values = {"queued_sequences": 5, "queued_tokens": 15, "running_sequences": 2, "running_tokens": 6}
        assert {name: scraped.value(f"heddle_engine_{name}") for name in values} == values
        assert scraped.value("heddle_engine_running_passes") == 1
        assert 0 < scraped.value("heddle_engine_queue_age_seconds") < 10
        cancelled.cancel()
        await scrape_until(url, lambda scraped: scraped.value("heddle_engine_queued_requests") == 1)
        backend.gate.set()
        await asyncio.gather(running, waiting)
        scraped = await scrape(url)
    assert scraped.value("heddle_engine_cancelled_sequences_total") == 4
    outcomes = ("ok", "cancelled", "overloaded")
    ended = {name: scraped.value("heddle_engine_submissions_total", outcome=name) for name in outcomes}
    assert ended == {"ok": 2, "cancelled": 1, "overloaded": 0}


def test_expired_sequences_are_counted() -> None:
    scheduler = make_scheduler(several([1, 2], deadline=time.monotonic() - 1), single())
    take_next(scheduler)
    assert scheduler.counts.expired_sequences == 2
    assert scheduler.counts.batch_sequences.sum == 1


async def test_refused_submissions_are_counted(tmp_path: Path) -> None:
    backend = GatedBackend()
    async with pods(tmp_path, backend, queue_items_max=1) as (client, url):
        backend.gate.clear()
        names = ("running_requests", "queued_requests", "refused_submissions_total")
        calls = []
        for count in range(3):
            calls.append(asyncio.create_task(client.vectors([WORDS[count]])))
            await scrape_until(
                url,
                lambda scraped, count=count: scraped.value(f"heddle_engine_{names[count]}") == 1,  # type: ignore[misc]
            )
        backend.gate.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        scraped = await scrape(url)
    assert [isinstance(answer, HeddleError) for answer in answers] == [False, False, True]
    assert scraped.value("heddle_engine_refused_submissions_total", reason="queue_full") == 1
    assert scraped.value("heddle_engine_submissions_total", outcome="overloaded") == 1


async def test_failed_sequences_and_halved_batches_are_counted(tmp_path: Path) -> None:
    async with pods(tmp_path, GatedBackend(broken_token=7305)) as (client, url):
        with pytest.raises(HeddleError):
            await client.vectors(list(WORDS))
        scraped = await scrape(url)
    assert scraped.value("heddle_engine_failed_sequences_total", kind="internal") == 1
    assert scraped.value("heddle_engine_halved_batches_total") == 2  # one of four sequences, then one of two


def test_the_memory_of_a_gpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure_device_memory() == {}
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        mem_get_info=lambda: (30, 100),
        memory_reserved=lambda: 60,
        memory_allocated=lambda: 50,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert measure_device_memory() == {"total": 100, "used": 70, "reserved": 60, "allocated": 50}
