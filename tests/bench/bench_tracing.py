"""Measures the cost of traces: requests per second and CPU time per request, without a collector and by `trace_ratio`.

    python -m tests.bench.bench_tracing --rounds 5
    python -m tests.bench.bench_tracing --calls
    python -m tests.bench.bench_tracing --before ../other-checkout

The engine is simulated and takes no time, so that the tiers are the bottleneck. All servers run at once and take turns
under a closed loop of short texts; ratios are taken within each round. The CPU time is that of all three services. The
collector is a process of its own and shares the cores. `--before` adds the `heddle serve` of another checkout, without
a collector. `--calls` counts calls of functions instead, which a busy machine does not change (see `bench_inputs`).
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from tests.bench.bench_inputs import COUNTING, counts_of, since
from tests.bench.load import Load, Report, measure
from tests.bench.ratios import ratio_of_turns
from tests.bench.servers import MODEL, Running, Server, simulated

CONNECTIONS = 64
WARM_UP_S = 1.0
OFF = "no collector"
BODIES = [f'{{"model": "{MODEL}", "input": "the quick brown fox {index}"}}' for index in range(1000)]


def main() -> None:
    options = parsed_options()
    with collecting() as collector:
        servers = list_servers(collector, options.ratios.split(","), options.before)
        if options.calls:
            print(*("| | calls/request | C calls/request |", "|---|---|---|"), sep="\n")
            for server in servers:
                calls, c_calls = count_calls(server, options.seconds)
                print(f"| {server.name} | {calls:.1f} | {c_calls:.1f} |", flush=True)
            return
        rates: dict[str, dict[int, float]] = {server.name: {} for server in servers}
        costs: dict[str, dict[int, float]] = {server.name: {} for server in servers}
        running = [Running(server) for server in servers]
        try:
            for one in running:
                one.wait_until_ready()
            for turn in range(options.rounds):
                random.shuffle(running)  # because the machine's speed drifts
                for one in running:
                    name = one.server.name
                    rates[name][turn], costs[name][turn] = measured(one, options.seconds)
                    print(f"round {turn + 1}, {name}: {rates[name][turn]:.0f}/s", file=sys.stderr, flush=True)
        finally:
            for one in running:
                one.stop()
    print(table(rates, costs))


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    parser.add_argument("--ratios", default="0,0.01,0.1,1")
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--before", default="", help="folder of another checkout")
    return parser.parse_args()


def list_servers(collector: str, ratios: list[str], before: str) -> list[Server]:
    plain = simulated(OFF, engines=1, fixed_us=0, per_token_ns=0)
    flags = ("--trace-collector", collector, "--trace-ratio")
    traced = [replace(plain, name=f"ratio {ratio}", command=(*plain.command, *flags, ratio)) for ratio in ratios]
    if not before:
        return [plain, *traced]
    folder = Path(before).resolve()
    variables = {**plain.environment, "PYTHONPATH": f"{folder}:{folder}/protos"}
    return [replace(plain, name="before", environment=variables, folder=folder), plain, *traced]


def count_calls(server: Server, seconds: float) -> tuple[float, float]:
    """Returns the calls of Python functions and of C functions, in all services, per request."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{COUNTING}:{server.environment.get('PYTHONPATH', os.environ.get('PYTHONPATH', ''))}"
        variables = {**server.environment, "PYTHONPATH": path, "BENCH_CALL_COUNTS": folder}
        running = Running(replace(server, environment=variables))
        try:
            running.wait_until_ready()
            send(running, WARM_UP_S)
            before = counts_of(running, Path(folder))
            requests = send(running, seconds).answers_in_all
            counts = since(before, counts_of(running, Path(folder))).values()
        finally:
            running.stop()
    return sum(one.calls.total() for one in counts) / requests, sum(one.c_calls for one in counts) / requests


def measured(running: Running, seconds: float) -> tuple[float, float]:
    """Returns answers per second, and CPU microseconds of all services per answer."""
    before = sum(running.cpu_seconds().values())
    report = send(running, seconds)
    used = sum(running.cpu_seconds().values()) - before
    return sum(report.answered) / report.seconds, 1e6 * used / report.answers_in_all


def send(running: Running, seconds: float) -> Report:
    load = Load(
        port=running.port,
        path="/v1/embeddings",
        bodies=BODIES,
        start=0,
        kept=[],
        seconds=seconds,
        warm_up_s=WARM_UP_S,
        connections=CONNECTIONS,
    )
    report = measure(load)
    assert not report.errors, "some requests failed"
    return report


def table(rates: dict[str, dict[int, float]], costs: dict[str, dict[int, float]]) -> str:
    base = "before" if "before" in rates else OFF
    rows = [f"| | requests/s | of {base} | CPU us/request | of {base} |", "|---|---|---|---|---|"]
    for name in rates:
        rate, cost = (statistics.median(those[name].values()) for those in (rates, costs))
        more = [ratio_of_turns(those[name], those[base]) or 0.0 for those in (rates, costs)]
        rows.append(f"| {name} | {rate:.0f} | {more[0]:.3f} | {cost:.0f} | {more[1]:.3f} |")
    return "\n".join(rows)


@contextlib.contextmanager
def collecting() -> Iterator[str]:
    """Yields the URL of a collector in another process."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=collect, args=(theirs,))
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.send(None)
        process.join()


def collect(told: Connection) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

    class Dropping(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: object, context: object) -> object:
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Dropping(), server)  # type: ignore[no-untyped-call]
    told.send(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    told.recv()
    server.stop(None)


if __name__ == "__main__":
    main()
