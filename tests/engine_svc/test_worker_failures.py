"""What a worker does when its device has too little memory, or is lost."""

import asyncio
import threading
from collections.abc import Mapping

import pytest

from engine_svc.backends import DeviceLostError, OutOfMemoryError
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from engine_svc.submission import Submission
from heddle.rpc.errors import ErrorKind, HeddleError
from tests.engine_svc.submissions import sequence
from tests.engine_svc.workers import Recording, Running
from tests.sequences import columns


class Small(Recording):
    """A device with memory for `tokens_max` tokens."""

    tokens_max = 12

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        results = super().run(batch)
        if batch.tokens > self.tokens_max:
            raise OutOfMemoryError(f"tried to allocate memory for {batch.tokens} tokens")
        return results


async def test_batch_that_is_too_large_for_the_memory_is_run_in_halves() -> None:
    backend = Small()
    running = Running(lambda: backend)
    running.scheduler.submit([running.single(number, sequence(3)) for number in range(8)])
    await running.until(8)
    assert not any(running.kind(number) for number in range(8))
    assert backend.sizes == [8, 4, 4]
    await running.end()


async def test_a_sequence_too_large_for_the_memory_fails_alone_and_may_be_retried() -> None:
    running = Running(Small)
    running.scheduler.submit([running.single(number, sequence(13 if number == 2 else 3)) for number in range(6)])
    await running.until(6)
    error = running.error(2)
    assert isinstance(error, HeddleError)
    assert error.kind is ErrorKind.OVERLOADED
    assert error.retry_after_ms
    assert "13 tokens" in error.message
    assert not any(running.kind(number) for number in (0, 1, 3, 4, 5))
    await running.end()


class Lost(Recording):
    """Its device is lost with the first batch of three sequences."""

    is_lost = False

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        self.is_lost = self.is_lost or len(batch) == 3
        if self.is_lost:
            self.sizes.append(len(batch))
            raise DeviceLostError("an illegal memory access was encountered")
        return super().run(batch)


async def test_batch_that_loses_the_device_is_neither_run_again_nor_answered() -> None:
    backend = Lost()
    running = Running(lambda: backend)
    running.scheduler.submit([running.single(number) for number in range(3)])
    with pytest.raises(DeviceLostError):
        await asyncio.wait_for(asyncio.wrap_future(running.worker.stopped), 5)
    assert backend.sizes == [3]
    assert not running.outcomes
    running.scheduler.close()


async def test_the_worker_ends_at_once_even_if_another_pass_hangs_on_the_lost_device() -> None:
    backend = Lost()
    running = Running(lambda: backend, passes=2)
    await asyncio.wrap_future(running.worker.loaded)
    backend.gate.clear()
    running.scheduler.submit([running.single(0)])
    async with asyncio.timeout(5):
        while not running.worker.running_tokens:
            await asyncio.sleep(0.002)
    running.scheduler.submit([running.single(number) for number in range(1, 4)])
    with pytest.raises(DeviceLostError):
        await asyncio.wait_for(asyncio.wrap_future(running.worker.stopped), 5)
    assert not backend.closed
    backend.gate.set()
    running.scheduler.close()


async def test_any_thread_that_dies_ends_the_worker() -> None:
    class Dying(Recording):
        def __init__(self) -> None:
            super().__init__()
            self.first = threading.current_thread()

        def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
            if threading.current_thread() is not self.first:
                raise SystemExit
            return super().run(batch)

    running = Running(Dying, passes=2)
    backend = await asyncio.wrap_future(running.worker.loaded)
    assert isinstance(backend, Dying)
    backend.gate.clear()
    async with asyncio.timeout(5):
        while not running.worker.stopped.done():  # the first thread may take one of them
            running.scheduler.submit([Submission(columns(sequence(2)), "flow", lambda outcome: None)])
            await asyncio.sleep(0.01)
    assert isinstance(running.worker.stopped.exception(), SystemExit)
    backend.gate.set()
    running.scheduler.close()
