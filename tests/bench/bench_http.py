"""Embeddings over HTTP, closed loop: Heddle beside Infinity on the same texts, taking turns of seconds within one run.

    python -m tests.bench.bench_http --peers /tmp/peers

Prints a Markdown table. All servers run all the time, and take turns under load:
machines change their speed from minute to minute, so that only ratios of neighbouring turns say anything.
Some answers of every server are compared with sentence-transformers' while it runs: nobody wins by being wrong.
"""

import argparse
import contextlib
import itertools
import platform
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from heddle.model_source import packaged_folder
from tests.bench.load import Load, Report, measure
from tests.bench.servers import Server, cpu_seconds, heddle, infinity, install_infinity, running, wait_until_idle

WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend"
)
# Words of a text by the name of its workload; each word is one token, and the model adds two.
WORKLOADS = {"5 words": 5, "250 tokens": 248}
TEXTS = 512
CONNECTIONS = (1, 64, 256)
# bfloat16 has eight bits of mantissa.
COSINE_MIN = 0.99


@dataclass
class Cell:
    """What one server did under one load, over all rounds."""

    reports: list[Report] = field(default_factory=list)
    cpu_ms: list[dict[str, float]] = field(default_factory=list)  # per answer, by process

    @property
    def per_second(self) -> float:
        return mean(report.per_second for report in self.reports)

    def __str__(self) -> str:
        p50, p99 = (mean(getattr(report, name) for report in self.reports) for name in ("p50_ms", "p99_ms"))
        errors = sum(report.errors for report in self.reports)
        cpu = ", ".join(f"{name} {mean(one.get(name, 0) for one in self.cpu_ms):.2f}" for name in self.cpu_ms[0])
        return f"{self.per_second:,.1f} | {p50:.1f} | {p99:.1f} | {errors} | {cpu}"


Key = tuple[str, int, str]  # workload, connections, server


def main() -> None:
    arguments = parsed_arguments()
    install_infinity(arguments.peers / "infinity")
    servers = [heddle(), *(infinity(arguments.peers / "infinity", dtype) for dtype in arguments.infinity)]
    texts = {name: made_texts(words) for name, words in WORKLOADS.items()}
    references = {name: reference(those) for name, those in texts.items()}
    cells: dict[Key, Cell] = {}
    with contextlib.ExitStack() as stack:
        started = [(server, *stack.enter_context(running(server))) for server in servers]
        for turn, name, connections in itertools.product(range(arguments.rounds), arguments.inputs, CONNECTIONS):
            print(f"round {turn + 1} of {arguments.rounds}: {name}, {connections} connections", file=sys.stderr)
            for server, port, pid in started:
                load = Load(port, server.model, texts[name], connections, arguments.seconds, 5 * arguments.seconds, 1.0)
                cell = cells.setdefault((name, connections, server.name), Cell())
                observe(server, cell, load, pid, references[name])
                wait_until_idle(pid)
    print("\n".join(table(cells, servers)))


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = Path(tempfile.gettempdir()) / "heddle-peers"
    parser.add_argument("--peers", type=Path, default=peers, help=f"where other servers are installed ({peers})")
    dtypes = ["bfloat16", "float32"]
    parser.add_argument("--infinity", nargs="*", default=dtypes, help="number formats of Infinity (both)")
    parser.add_argument("--inputs", nargs="*", default=list(WORKLOADS), choices=WORKLOADS, help="lengths (all)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each server (2)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement (8)")
    return parser.parse_args()


def made_texts(words: int) -> list[str]:
    rng = random.Random(words)
    return [" ".join(rng.choices(WORDS.split(), k=words)) for _ in range(TEXTS)]


def reference(texts: list[str]) -> npt.NDArray[np.float32]:
    model = SentenceTransformer(str(packaged_folder()), device="cpu")
    vectors: npt.NDArray[np.float32] = model.encode(texts, normalize_embeddings=True, batch_size=32)
    return vectors


def observe(server: Server, cell: Cell, load: Load, pid: int, expected: npt.NDArray[np.float32]) -> None:
    """One measurement. The CPU time is that of the whole run, warm-up included, over all its answers."""
    before = cpu_seconds(pid)
    report = measure(load)
    used = {name: seconds - before.get(name, 0.0) for name, seconds in cpu_seconds(pid).items()}
    for index, vector in report.checked.items():
        cosine = float(np.dot(vector, expected[index]) / np.linalg.norm(vector))
        if cosine < COSINE_MIN:
            raise RuntimeError(f"a wrong vector: cosine {cosine:.4f} for {load.texts[index]!r}")
    answers = max(1.0, report.answers * (load.warm_up_s + report.seconds) / report.seconds)
    cell.reports.append(report)
    cell.cpu_ms.append({name: 1e3 * seconds / answers for name, seconds in used.items()})
    figures = f"{report.per_second:,.1f}/s, {report.p50_ms:.1f} ms, {report.errors} errors"
    print(f"  {server.name}: {figures}", file=sys.stderr)


def table(cells: dict[Key, Cell], servers: list[Server]) -> Iterator[str]:
    yield f"{processor()}, Python {platform.python_version()}; ratios are Heddle's answers/s over the other's.\n"
    yield "| input | connections | server | answers/s | p50 ms | p99 ms | errors | CPU ms per answer | Heddle's ratio |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for (name, connections, server), cell in sorted(cells.items(), key=lambda item: list(WORKLOADS).index(item[0][0])):
        ours = cells[name, connections, servers[0].name]
        ratio = "" if cell is ours or not cell.per_second else f"{ours.per_second / cell.per_second:.2f}"
        yield f"| {name} | {connections} | {server} | {cell} | {ratio} |"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
