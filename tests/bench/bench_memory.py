"""The memory that clients make a tokenizer pod hold: messages that are not finished, and answers that are not read.

    python -m tests.bench.bench_memory [--tree /path/to/another/checkout ...]

Eight connections each send a message of 200 MiB but for its last byte. Then eight clients each ask for token vectors of
many texts, on a stream, and read nothing. The pod's RSS is printed before, while and after each.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions

from heddle.v1 import inference_pb2, inference_pb2_grpc
from tests.processes import resident_bytes

CLIENTS = 8
MESSAGE_BYTES = 200 << 20
TOKENIZER = "127.0.0.1:18451"


@contextlib.contextmanager
def tokenizer_pod(tree: Path) -> Iterator[int]:
    """Yields the pid of a tokenizer pod, once it is ready."""
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{tree}/protos", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        commands = [
            ("engine_svc", "--listen", f"unix:{folder}/engine", "--backend", "simulated"),
            ("tokenizer_svc", "--listen", TOKENIZER, "--engines", f"unix:{folder}/engine"),
        ]
        running = [subprocess.Popen((sys.executable, "-m", *words), env=environment, cwd=tree) for words in commands]
        try:
            yield running[1].pid
        finally:
            for process in running:
                process.kill()
                process.wait()


async def send_unfinished() -> None:
    """Sends until all but one byte has left, or the server refuses."""
    host, _, port = TOKENIZER.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with contextlib.closing(writer):
        await send(reader, writer)


async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = h2.connection.H2Connection(h2.config.H2Configuration())
    connection.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "http"), (":authority", TOKENIZER)]
    headers += [
        (":path", "/heddle.v1.InferenceService/Infer"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    connection.send_headers(1, headers)
    left = MESSAGE_BYTES - 1
    connection.send_data(1, b"\0" + MESSAGE_BYTES.to_bytes(4, "big"))
    while True:
        with contextlib.suppress(h2.exceptions.ProtocolError):
            while left and (window := connection.local_flow_control_window(1)):
                size = min(left, window, connection.max_outbound_frame_size)
                connection.send_data(1, bytes(size))
                left -= size
        writer.write(connection.data_to_send())
        data = await reader.read(65536)
        if not data:
            return
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                return
        writer.write(connection.data_to_send())


async def read_nothing() -> None:
    words = " ".join(["words"] * 300)
    async with grpc.aio.insecure_channel(TOKENIZER) as channel:
        call = inference_pb2_grpc.InferenceServiceStub(channel).Infer()
        frame = inference_pb2.InferenceServiceInferRequest(takes_pieces=True)
        for item_id in range(2):
            item = frame.items.add(id=item_id)
            for number in range(320):
                item.embed_tokens.inputs.add(text=f"{number} {words}")
        await call.write(frame)
        await asyncio.sleep(600)


async def watch(name: str, pid: int, behaviour: object, seconds: float) -> None:
    before = resident_bytes(pid)
    tasks = [asyncio.create_task(behaviour()) for _ in range(CLIENTS)]  # type: ignore[operator]
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, resident_bytes(pid))
        await asyncio.sleep(0.1)
    last = resident_bytes(pid)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(25)
    after = resident_bytes(pid)
    mib = [size >> 20 for size in (before, most, last, after)]
    print(f"{name}: RSS in MiB: before {mib[0]}, most {mib[1]}, after {seconds:g} s {mib[2]}, 25 s later {mib[3]}")


async def measure(tree: Path, pid: int) -> None:
    async with grpc.aio.insecure_channel(TOKENIZER) as channel:
        request = inference_pb2.EmbedRequest(inputs=[inference_pb2.Input(text="ready")])
        for _ in range(100):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await inference_pb2_grpc.InferenceServiceStub(channel).Embed(request)
                break
            await asyncio.sleep(0.2)
    await watch(f"{tree.name}, {CLIENTS} unfinished messages", pid, send_unfinished, 12)
    await watch(f"{tree.name}, {CLIENTS} readers of nothing", pid, read_nothing, 45)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tree", action="append", type=Path, help="a checkout; this one by default")
    for tree in parser.parse_args().tree or [Path(__file__).parents[2]]:
        with tokenizer_pod(tree) as pid:
            asyncio.run(measure(tree, pid))


if __name__ == "__main__":
    main()
