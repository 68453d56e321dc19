"""Engines join and leave DNS, and the network to one is cut, in network namespaces. No request fails."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import tests.dns_server
from heddle.cli.readiness import grpc_ready
from heddle.client import Client
from tests.namespaces import Namespace, ip, namespace

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

READY_S_MAX = 60
PORT = 50052
ENGINE = "-m", "engine_svc", "--backend", "simulated", "--log-level", "warning", "--listen"
TOKENIZER = "-m", "tokenizer_svc", "--log-level", "info", "--listen"
DNS_INTERVAL_S, SILENCE_S_MAX = 0.5, 1.5
# Runs first in each process: the tests need not wait as long as networks deserve.
HASTE = f"""
import importlib, sys
for service in {{"engine_svc", "tokenizer_svc"}}.intersection(sys.orig_argv):
    importlib.import_module(service)
    import heddle.rpc.stream
    import heddle.rpc.targets
    heddle.rpc.stream.HEARTBEAT_S = {SILENCE_S_MAX / 3}
    heddle.rpc.stream.SILENCE_S_MAX = {SILENCE_S_MAX}
    heddle.rpc.targets.DNS_INTERVAL_S = {DNS_INTERVAL_S}
"""


@pytest.fixture(autouse=True)
def haste(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(HASTE)
    monkeypatch.syspath_prepend(str(tmp_path))


class Callers:
    """Callers that send one request after the other until `stop`."""

    def __init__(self, client: Client, count: int = 8) -> None:
        self.answers = 0
        self.tasks = [asyncio.create_task(self._call(client, number)) for number in range(count)]

    async def _call(self, client: Client, number: int) -> None:
        while True:
            await client.vectors([f"caller {number}, question {self.answers}"])
            self.answers += 1

    async def progress(self, seconds: float = 0) -> None:
        """Waits for `seconds`, and until each caller has had more answers. Raises the first error."""
        enough = self.answers + 10 * len(self.tasks)
        await asyncio.wait(self.tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        async with asyncio.timeout(READY_S_MAX):
            while self.answers < enough:
                for task in self.tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()


@asynccontextmanager
async def callers_of(target: str) -> AsyncIterator[Callers]:
    await wait_until_ready(target, "heddle.v1.InferenceService")
    async with Client(target) as client:
        callers = Callers(client)
        try:
            await callers.progress()
            yield callers
            await callers.progress()
        finally:
            callers.stop()


async def wait_until_ready(target: str, service: str) -> None:
    async with asyncio.timeout(READY_S_MAX):
        while not await grpc_ready(target, service):
            await asyncio.sleep(0.1)


async def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return await asyncio.to_thread(process.wait, READY_S_MAX)


async def test_engines_join_and_leave_a_dns_name(tmp_path: Path) -> None:
    names, target = tmp_path / "addresses", f"unix:{tmp_path}/tokenizer"
    with namespace(nameserver="127.0.0.53") as net:
        names.write_text("127.0.0.1")
        net.start(tests.dns_server.__file__, "127.0.0.53", str(names))
        first = start_engine(net, tmp_path, "127.0.0.1")
        net.start(*TOKENIZER, target, "--engines", f"dns:///engines.heddle.test:{PORT}")
        async with callers_of(target) as callers:
            second = start_engine(net, tmp_path, "127.0.0.2")
            await wait_until_ready(f"unix:{tmp_path}/127.0.0.2", "heddle.v1.EngineService")
            names.write_text("127.0.0.1 127.0.0.2")
            await callers.progress(DNS_INTERVAL_S + 1)
            names.write_text("127.0.0.2")
            await callers.progress(DNS_INTERVAL_S + 1)
            first.send_signal(signal.SIGKILL)  # nobody uses it any more, so nothing is lost
            await callers.progress()
            assert second.poll() is None


def start_engine(net: Namespace, folder: Path, address: str) -> "subprocess.Popen[bytes]":
    return net.start(*ENGINE, f"{address}:{PORT},unix:{folder}/{address}")


async def test_requests_go_on_while_the_network_to_one_engine_is_cut(tmp_path: Path) -> None:
    near, target = f"unix:{tmp_path}/near", f"unix:{tmp_path}/tokenizer"
    with namespace() as here, namespace() as there:
        ip("link", "add", "near", "netns", here.name, "type", "veth", "peer", "name", "far", "netns", there.name)
        for net, device, address in ((here, "near", "10.99.0.1/30"), (there, "far", "10.99.0.2/30")):
            net.ip("address", "add", address, "dev", device)
            net.ip("link", "set", device, "up")
        nearby = here.start(*ENGINE, near)
        start_engine(there, tmp_path, "10.99.0.2")
        here.start(*TOKENIZER, target, "--engines", f"{near},10.99.0.2:{PORT}")
        await wait_until_ready(f"unix:{tmp_path}/10.99.0.2", "heddle.v1.EngineService")
        async with callers_of(target) as callers:
            await callers.progress(1)
            there.ip("link", "set", "far", "down")
            await callers.progress(2 * SILENCE_S_MAX)  # the stream is closed
            there.ip("link", "set", "far", "up")
            await callers.progress(2)
            nearby.send_signal(signal.SIGKILL)  # so the other one must be back
            await callers.progress()
