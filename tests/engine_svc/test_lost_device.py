"""When an engine pod loses its device, its process exits, and callers get their answers from another pod."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import patch

from engine_svc import pod
from engine_svc.__main__ import main
from engine_svc.backends import DeviceLostError
from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from heddle.cli.readiness import grpc_ready
from heddle.client import Client
from tests.cluster import ENGINE, READY_S_MAX, engine_pod, tokenizer_pod


class Lost:
    """Simulated. Loses its device in the first pass after warm-up."""

    outputs, data_type = SimulatedBackend().outputs, "float32"

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        if batch.token_ids.any():
            raise DeviceLostError("an illegal memory access was encountered")
        return SimulatedBackend().run(batch)

    def close(self) -> None:
        pass


@asynccontextmanager
async def start_process(address: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = (sys.executable, "-m", __name__, "--listen", address, "--backend", "simulated")
    process = await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[2])
    try:
        async with asyncio.timeout(3 * READY_S_MAX):
            while not await grpc_ready(address, ENGINE):
                await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_pod_whose_device_is_lost_exits_and_another_pod_answers(tmp_path: Path) -> None:
    doomed = f"unix:{tmp_path}/doomed"
    async with (
        start_process(doomed) as process,
        engine_pod(tmp_path) as living,
        tokenizer_pod(tmp_path, doomed, living) as address,
    ):
        client = Client(address)
        try:
            async with asyncio.timeout(30):
                while process.returncode is None:
                    vectors = await asyncio.gather(*(client.vectors([f"caller {number}"]) for number in range(8)))
                    assert all(vector.shape == (1, 384) for vector in vectors)
        finally:
            await client.close()
        assert await process.wait() == 1


if __name__ == "__main__":
    with patch.object(pod, "load_backend", lambda *_: Lost()):
        main()
