"""Two pods of each tier behind a real HAProxy and a real nginx, with the configurations of deploy/proxies.

Every hop goes through a proxy: client, gateway, tokenizer pod, engine pod. Both proxies have all pods behind them;
gateways and tokenizer pods call the next tier through one of the two. The names and ports in the files are replaced by
addresses of this machine; everything else is as users copy it.
"""

import asyncio
import contextlib
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import engine_svc.pod as engine
import http_gateway.__main__ as http_gateway
import tokenizer_svc.__main__ as tokenizer
from engine_svc.settings import EngineSettings
from heddle.cli.readiness import grpc_ready, http_ready
from heddle.rpc.credentials import ClientTls
from heddle.rpc.listening import usable_port
from heddle.rpc.settings import ConfigurationError
from http_gateway.settings import GatewaySettings
from tests.certificates import Certificate, make_authority, sign
from tests.cluster import ENGINE, TOKENIZER, running
from tokenizer_svc.settings import TokenizerSettings

ROOT = Path(__file__).parents[2]
PROXIES = ROOT / "deploy" / "proxies"
START_S_MAX = 60
STOP_S_MAX = 40

DRAIN = ("--drain-delay-s", "4")  # a second longer than HAProxy takes to notice
NO_METRICS = ("--metrics-port", "none")
SIMULATED = ("--backend", "simulated", "--simulated-fixed-us", "1000", "--simulated-per-token-ns", "1000")


@dataclass
class Pod:
    """A service in a process of its own, which tests kill, stop and start again."""

    name: str
    words: Sequence[str | Path]
    is_ready: Callable[[], Awaitable[bool]]
    log: Path
    root: Path = ROOT  # of the code
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *map(str, self.words),
                stdout=output,
                stderr=output,
                cwd=self.root,  # comes first among the folders of `python -m`
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(self.root), str(self.root / "protos")])},
            )

    async def wait_ready(self) -> None:
        assert self.process
        async with asyncio.timeout(START_S_MAX):
            while not await self.is_ready():
                assert self.process.returncode is None, self.log.read_text()[-2000:]
                await asyncio.sleep(0.05)

    async def end(self, how: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(how)
        async with asyncio.timeout(STOP_S_MAX):
            code = await self.process.wait()
        assert code == (0 if how is signal.SIGTERM else -how), self.log.read_text()[-2000:]

    async def restart(self) -> None:
        await self.start()
        await self.wait_ready()


@dataclass
class Cluster:
    """The pods, and the ports of one proxy in front of them."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)  # of this machine, by port or pod in the files
    pods: dict[str, Pod] = field(default_factory=dict)
    ca: Certificate | None = None

    def port(self, name: str) -> int:
        if name not in self.ports:
            self.ports[name] = find_port()
        return self.ports[name]

    def beside(self, folder: Path, stand_ins: Mapping[str, int] | None = None) -> "Cluster":
        """The same pods, or `stand_ins` for some, behind one more proxy with ports of its own."""
        pods = {name: port for name, port in self.ports.items() if ":" in name}
        for file in self.folder.glob("*.pem"):
            (folder / file.name).write_bytes(file.read_bytes())
        return Cluster(folder, {**pods, **(stand_ins or {})}, self.pods, self.ca)

    def at(self, name: str) -> str:
        return f"127.0.0.1:{self.port(name)}"

    def certificate(self, name: str) -> Certificate:
        assert self.ca
        own = Certificate(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        names = f"DNS:localhost,IP:127.0.0.1,DNS:heddle-{name}"
        return own if own.cert.exists() else sign(self.ca, name, names)

    def server_tls(self, name: str) -> dict[str, Any]:
        """Settings of a pod that requires certificates."""
        assert self.ca
        own = self.certificate(name)
        return {"tls_cert": own.cert, "tls_key": own.key, "tls_ca": self.ca.cert}

    def client_tls(self, name: str) -> ClientTls:
        assert self.ca
        own = self.certificate(name)
        return ClientTls(self.ca.cert, own.cert, own.key)

    def add_engine(self, name: str, *flags: str | Path) -> None:
        socket = f"unix:{self.folder}/{name.partition(':')[0]}{self.port(name)}"
        words = ("engine_svc", "--listen", f"{self.at(name)},{socket}", *SIMULATED, *NO_METRICS, *DRAIN, *flags)
        self._add(name, words, partial(grpc_ready, socket, ENGINE))

    def add_tokenizer(self, name: str, engines: str, *flags: str | Path) -> None:
        """`engines` is an address."""
        socket = f"unix:{self.folder}/{name.partition(':')[0]}{self.port(name)}"
        words = (
            "tokenizer_svc",
            "--listen",
            f"{self.at(name)},{socket}",
            "--engines",
            engines,
            *NO_METRICS,
            *DRAIN,
            *flags,
        )
        self._add(name, words, partial(grpc_ready, socket, TOKENIZER))

    def add_gateway(self, name: str, tokenizers: str, *flags: str | Path) -> None:
        socket = f"{self.folder}/{name.partition(':')[0]}{self.port(name)}"
        words = ("http_gateway", "--port", str(self.port(name)), "--unix-socket", socket)
        targets = ("--tokenizers", tokenizers, "--trusted-proxies", "1", *DRAIN)
        self._add(name, (*words, *targets, *flags), partial(http_ready, f"unix:{socket}"))

    def _add(self, name: str, words: Sequence[str | Path], is_ready: Callable[[], Awaitable[bool]]) -> None:
        log = self.folder / f"{name.replace(':', '-')}.log"
        self.pods[name] = Pod(name, (sys.executable, "-m", *words, "--log-level", "warning"), is_ready, log)

    def configure(self, file: str, *changes: tuple[str, str]) -> Path:
        """Writes a copy of a file in deploy/proxies with the addresses and files of this cluster."""
        text = (PROXIES / file).read_text()
        text = re.sub(r"\b(?:gateway|tokenizer|engine)-\d:\d+", lambda match: self.at(match[0]), text)
        text = re.sub(r"(bind (?:127\.0\.0\.1)?:|listen )(\d+)", lambda match: f"{match[1]}{self.port(match[2])}", text)
        text = text.replace("/etc/heddle/tls/", f"{self.folder}/").replace("pid /tmp/", f"pid {self.folder}/")
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        copy = self.folder / file
        copy.write_text(text)
        return copy


@asynccontextmanager
async def clusters(folder: Path, proxies: Sequence[str]) -> AsyncIterator[dict[str, Cluster]]:
    """Starts two pods of each tier in processes of their own. Yields them behind each of the proxies, which are not
    started here. `with_tls` adds a pod of each tier that requires certificates."""
    ca = make_authority(folder)
    made = Cluster(folder, ca=ca)
    for tier in ("engine-{}:50052", "tokenizer-{}:50051", "gateway-{}:8080"):
        for number in (1, 2):
            made.port(tier.format(number))
    for name in ("engine-2:50062", "tokenizer-2:50061", "gateway-2:8443"):
        made.ports[name] = made.port(name.replace("-2", "-1"))
    proxy = made.certificate("proxy")
    (folder / "proxy.pem").write_text(proxy.cert.read_text() + proxy.key.read_text())
    (folder / "proxy.key.pem").write_text(proxy.key.read_text())
    for name in ("clients-ca.pem", "pods-ca.pem"):
        (folder / name).write_text(ca.cert.read_text())
    behind = {}
    for name in proxies:
        (folder / name).mkdir()
        behind[name] = made.beside(folder / name)
    for number, own in enumerate((behind[proxies[0]], behind[proxies[-1]]), start=1):
        made.add_engine(f"engine-{number}:50052")
        made.add_tokenizer(f"tokenizer-{number}:50051", own.at("50052"))
        made.add_gateway(f"gateway-{number}:8080", own.at("50051"), "--requests-max", "16")
    try:
        for pod in made.pods.values():
            await pod.start()
        yield behind
    finally:
        for pod in made.pods.values():
            if pod.process and pod.process.returncode is None:
                pod.process.kill()
                await pod.process.wait()


@asynccontextmanager
async def with_tls(at: Cluster) -> AsyncIterator[None]:
    """A pod of each tier in this process. Each requires certificates, and shows its own to the next tier's proxy."""
    sockets = [f"unix:{at.folder}/{name}-tls" for name in ("engine", "tokenizer", "gateway")]
    engine_settings = EngineSettings(
        listen=(at.at("engine-1:50062"), sockets[0]), backend="simulated", **at.server_tls("engine")
    )
    tokenizer_settings = TokenizerSettings(
        listen=(at.at("tokenizer-1:50061"), sockets[1]),
        engines=(at.at("50062"),),
        **at.server_tls("tokenizer"),
        **{f"engines_{name}": file for name, file in at.server_tls("tokenizer").items()},
    )
    gateway_settings = GatewaySettings(
        port=at.port("gateway-1:8443"),
        unix_socket=Path(sockets[2].removeprefix("unix:")),
        tokenizers=(at.at("50061"),),
        **at.server_tls("gateway"),
        **{f"tokenizers_{name}": file for name, file in at.server_tls("gateway").items()},
    )
    async with (
        running(lambda stop: engine.serve(engine_settings, stop), partial(grpc_ready, sockets[0], ENGINE)),
        running(lambda stop: tokenizer.serve(tokenizer_settings, stop), partial(grpc_ready, sockets[1], TOKENIZER)),
        running(lambda stop: http_gateway.serve(gateway_settings, stop), partial(http_ready, sockets[2])),
    ):
        yield


@asynccontextmanager
async def haproxy(at: Cluster, *changes: tuple[str, str]) -> AsyncIterator[None]:
    files = [at.configure("haproxy.cfg", *changes), at.configure("haproxy-tls.cfg")]
    async with program(at, "haproxy", "-db", *(word for file in files for word in ("-f", file))):
        yield


@asynccontextmanager
async def nginx(at: Cluster, *changes: tuple[str, str]) -> AsyncIterator[None]:
    tls = at.configure("nginx-tls.conf")
    text = at.configure("nginx.conf", *changes).read_text()
    body = text.rstrip().removesuffix("}")
    (at.folder / "nginx.conf").write_text(f"{body}include {tls};\n}}\ndaemon off;\n")
    async with program(at, "nginx", "-e", "stderr", "-p", at.folder, "-c", at.folder / "nginx.conf"):
        yield


@asynccontextmanager
async def program(at: Cluster, *words: str | Path) -> AsyncIterator[None]:
    log = at.folder / f"{words[0]}.log"
    proxy = Pod(str(words[0]), words, partial(listens, at.port("8080")), log)
    async with AsyncExitStack() as stack:
        await proxy.start()
        stack.push_async_callback(stop, proxy)
        await proxy.wait_ready()
        yield


def find_port() -> int:
    """A free port outside the range that connections take theirs from: a pod that starts again needs it too."""
    while True:
        with contextlib.suppress(ConfigurationError):
            return usable_port("127.0.0.1", random.randrange(12_000, 32_000))


async def stop(proxy: Pod) -> None:
    assert proxy.process
    if proxy.process.returncode is None:
        proxy.process.terminate()
        await asyncio.wait_for(proxy.process.wait(), STOP_S_MAX)


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


RUN = {"haproxy": haproxy, "nginx": nginx}
