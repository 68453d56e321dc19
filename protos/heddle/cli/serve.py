"""`heddle serve`: runs all three services on this machine, connected by unix sockets. Called by `main`."""

import asyncio
import json
import shlex
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.language_models import AUTO
from heddle.checkpoint.model_source import locate
from heddle.cli.commands import LIBRARY_OF_EXTRA, missing_extras
from heddle.cli.config_command import apply_config_file
from heddle.cli.default_route import ROUTE_VARIABLE, find_mismatch
from heddle.cli.interrupts import leave_on_signal
from heddle.cli.metrics_ports import CONNECT_ADDRESSES, MetricsAddress, choose_addresses
from heddle.cli.readiness import grpc_ready, http_ready
from heddle.cli.serve_settings import NAME_VARIABLES, PREFIX_OF_SERVICE, ServeSettings
from heddle.cli.serve_table import list_stated
from heddle.cli.served_address import use_address
from heddle.cli.served_build import BuildFailedError, use_build
from heddle.cli.socket_folder import socket_folder
from heddle.cli.supervisor import Console, Service, ServiceGaveUpError, ServiceMisconfiguredError, Supervisor
from heddle.machine import usable_cores, visible_gpus
from heddle.rpc.listening import authority, bind_port, usable_port
from heddle.rpc.process import stop_on_signal
from heddle.rpc.settings import EXIT_MISCONFIGURED, KUBERNETES_LINK, ConfigurationError, load
from heddle.rpc.start_times import process_began_at

# The gateway reads its keys from this variable. `serve` only checks whether there are any.
KEYS_VARIABLE = "HEDDLE_GATEWAY_API_KEYS"

DEVICE_VARIABLE = "HEDDLE_ENGINE_DEVICE"

SERVE_PREFIX = "HEDDLE_SERVE_"
PREFIXES = (SERVE_PREFIX, *PREFIX_OF_SERVICE.values(), "HEDDLE_PLAN_", "HEDDLE_BUILD_", "HEDDLE_CACHE", "HEDDLE_WEB_")

# `serve` passes these settings to the services as flags, which override the variables.
OVERRIDDEN_VARIABLES = frozenset(
    {
        *("HEDDLE_ENGINE_LISTEN", "HEDDLE_ENGINE_MODEL", "HEDDLE_ENGINE_REVISION", "HEDDLE_ENGINE_BACKEND"),
        *("HEDDLE_TOKENIZER_LISTEN", "HEDDLE_TOKENIZER_MODEL", "HEDDLE_TOKENIZER_REVISION"),
        "HEDDLE_TOKENIZER_ENGINES",
        *("HEDDLE_GATEWAY_HOST", "HEDDLE_GATEWAY_PORT", "HEDDLE_GATEWAY_UNIX_SOCKET", "HEDDLE_GATEWAY_TOKENIZERS"),
        "HEDDLE_GATEWAY_LISTEN_FD",
        *("HEDDLE_TOKENIZER_TLS_CERT", "HEDDLE_TOKENIZER_TLS_KEY", "HEDDLE_TOKENIZER_TLS_CA"),
        *("HEDDLE_GATEWAY_TLS_CERT", "HEDDLE_GATEWAY_TLS_KEY", "HEDDLE_GATEWAY_TLS_CA"),
    }
)

# How long one check waits for a service that has a socket but is not ready.
PATIENCE_S = 1.0

# A first request for each kind of model: route and body.
EXAMPLES: Mapping[ModelKind, tuple[str, Mapping[str, object]]] = {
    ModelKind.EMBEDDER: ("/v1/embeddings", {"input": "Hello, loom"}),
    ModelKind.MULTI_VECTOR_EMBEDDER: ("/embed_all", {"inputs": "Hello, loom"}),
    ModelKind.SPARSE_EMBEDDER: ("/embed_sparse", {"inputs": "Hello, loom"}),
    ModelKind.RERANKER: ("/rerank", {"query": "What is a loom?", "texts": ["It weaves cloth.", "It is raining."]}),
    ModelKind.CLASSIFIER: ("/predict", {"inputs": "I love this loom"}),
    ModelKind.TOKEN_CLASSIFIER: ("/predict_tokens", {"inputs": "Ada lives in London", "aggregation_strategy": "max"}),
}


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serves until a signal arrives. Returns the exit code."""
    given, origins = environ, dict[str, str]()
    argv, environ = apply_config_file(argv, environ)
    settings = load(ServeSettings, argv, environ, prog="heddle serve", env_prefix=SERVE_PREFIX, origins=origins)
    console = Console(log_format=settings.log_format)
    try:
        check_variables(environ)
        stated = list_stated(settings, origins, environ, given)
        with leave_on_signal():
            settings, environ = use_build(settings, environ, lambda line: console.line(f"heddle: {line}"))
            settings, environ = use_address(settings, environ)
            checkpoint = read_checkpoint(settings)
        if mismatch := find_mismatch(environ.get(ROUTE_VARIABLE, ""), checkpoint.kind):
            console.line(f"heddle: POST / will fail: the default route is {mismatch}", "warning")
        asyncio.run(serve(settings, checkpoint, environ, console, stated))
    except (BuildFailedError, ServiceMisconfiguredError):  # the child process has printed the reason
        return EXIT_MISCONFIGURED
    except ConfigurationError as error:
        console.line(f"heddle: {error}", "critical")
        return EXIT_MISCONFIGURED
    except ServiceGaveUpError as error:
        console.line(f"heddle: {error}", "critical")
        return 1
    return 0


def check_variables(environ: Mapping[str, str]) -> None:
    """Raises ConfigurationError for a variable that would have no effect."""
    for name in sorted(OVERRIDDEN_VARIABLES):
        if environ.get(name):
            raise ConfigurationError(f"{name} has no effect on heddle serve: use its own flag or variable instead")
    for name, value in sorted(environ.items()):
        is_ours = name.startswith("HEDDLE_") and not KUBERNETES_LINK.fullmatch(f"{name}={value}")
        if is_ours and not name.startswith(PREFIXES):
            raise ConfigurationError(f"unknown environment variable {name}: known prefixes are {', '.join(PREFIXES)}")


def read_checkpoint(settings: ServeSettings) -> Checkpoint:
    """Downloads the model if necessary. Called before any service starts, so that a mistake is reported once and not by
    every service."""
    if missing := missing_extras(LIBRARY_OF_EXTRA):
        raise ConfigurationError(
            f"libraries of the {' and '.join(missing)} are not installed: pip install 'heddle[local]'"
        )
    return Checkpoint.read(
        locate(settings.model, settings.revision or None),
        settings.model,
        pooling=settings.pooling,
        score_tokens=settings.score_tokens,
    )


async def serve(
    settings: ServeSettings,
    checkpoint: Checkpoint,
    environ: Mapping[str, str],
    console: Console,
    stated: Sequence[Mapping[str, str]],  # rows of the table of settings
) -> None:
    with socket_folder(environ) as sockets:
        stop = stop_on_signal(before_leaving=sockets.remove)
        services = LocalServices(
            settings,
            checkpoint.kind,
            str(sockets.path),
            revision=checkpoint.revision,
            gpus=count_gpus_to_share(settings, environ),
            http=bind_port(settings.host, settings.http_port),
            grpc_port=usable_port(settings.host, settings.grpc_port),
            environ=environ,
            metrics=choose_addresses(environ, settings.host, settings.engines),
        )
        if stated:
            console.line("heddle: settings", table=stated)
        if settings.engines < services.gpus:
            console.line(f"using {settings.engines} of {services.gpus} GPUs; --engines {services.gpus} uses all")
        await Supervisor(services.tiers(), console).run(
            stop,
            loading=f"loading {services.name}",
            when_ready=lambda: print(console.format(services.welcome()), flush=True),
        )


async def is_ready(address: str, service: str) -> bool:
    return await grpc_ready(address, f"heddle.v1.{service}", patience_s=PATIENCE_S)


def count_gpus_to_share(settings: ServeSettings, environ: Mapping[str, str]) -> int:
    """The number of GPUs to spread the engines over: 0 without GPUs, or if the operator has chosen the device."""
    is_chosen = settings.engine == "simulated" or settings.device != "auto" or environ.get(DEVICE_VARIABLE)
    return 0 if is_chosen else len(visible_gpus(environ))


@dataclass(frozen=True)
class LocalServices:
    """The command line and the addresses of each service."""

    settings: ServeSettings
    kind: ModelKind
    folder: str  # of the sockets between services
    revision: str  # commit of a hub model; "" for a folder
    http: socket.socket  # bound; the gateway listens on it once it is ready, and it stays open if the gateway crashes
    grpc_port: int
    environ: Mapping[str, str]
    metrics: Sequence[MetricsAddress]  # of the tokenizer and the engines
    gpus: int = 0  # GPUs to spread the engines over

    def tiers(self) -> list[list[Service]]:
        """In the order of stopping: callers first."""
        return [[self.gateway()], [self.tokenizer()], [self.engine(index) for index in range(self.settings.engines)]]

    def gateway(self) -> Service:
        flags = ("--listen-fd", str(self.http.fileno()), "--tokenizers", self.address_of("tokenizer"))
        # The port may require certificates, so /ready is asked over this socket.
        socket = ("--unix-socket", f"{self.folder}/gateway")
        return self._service(
            "gateway",
            "http_gateway",
            (*flags, *socket, "--listen-after", self.address_of("tokenizer"), *self.tls_flags),
            self.is_gateway_ready,
            sockets=(self.http,),
        )

    def tokenizer(self) -> Service:
        listen = f"{self.address_of('tokenizer')},{authority(self.settings.host, self.grpc_port)}"
        engines = ",".join(self.address_of(f"engine-{index}") for index in range(self.settings.engines))
        return self._service(
            "tokenizer",
            "tokenizer_svc",
            (
                *(*self.model_flags, "--listen", listen, "--engines", engines, "--listen-after", engines),
                *(*self.tls_flags, *self.metrics[0].flags),
            ),
            self.is_tokenizer_ready,
        )

    def engine(self, index: int) -> Service:
        settings, address = self.settings, self.address_of(f"engine-{index}")
        flags = (
            *self.model_flags,
            *("--listen", address, "--backend", settings.engine),
            *self.device_flags(index),
            *(() if settings.dtype == "auto" else ("--dtype", settings.dtype)),
            *(() if settings.quantization == "no_quant" else ("--quantization", settings.quantization)),
            *self._flag_unless_set("HEDDLE_ENGINE_THREADS", "--threads", max(1, usable_cores() // settings.engines)),
            *self.metrics[1 + index].flags,
        )
        name = f"engine {index}" if settings.engines > 1 else "engine"
        return self._service(name, "engine_svc", flags, lambda: is_ready(address, "EngineService"))

    async def is_tokenizer_ready(self) -> bool:
        return await is_ready(self.address_of("tokenizer"), "InferenceService")

    async def is_gateway_ready(self) -> bool:
        """The gateway is never ready before the tokenizer."""
        return await self.is_tokenizer_ready() and await http_ready(self.address_of("gateway"))

    def device_flags(self, index: int) -> tuple[str, ...]:
        """Empty if the engine finds the right device itself."""
        if self.settings.device != "auto":
            return ("--device", self.settings.device)
        is_spread = self.gpus > 1 and self.settings.engines > 1
        return ("--device", f"cuda:{index % self.gpus}") if is_spread else ()

    def welcome(self) -> str:
        host = CONNECT_ADDRESSES.get(self.settings.host, self.settings.host)
        url = f"{'https' if self.settings.tls_cert else 'http'}://{authority(host, self.http.getsockname()[1])}"
        watched = [address.shown for address in self.metrics if address.shown]
        path, example = EXAMPLES[self.kind]
        body = json.dumps({"model": self.name, **example}, ensure_ascii=False)
        # The user's shell inserts the first of several keys. The key itself must not be shown.
        key = f' -H "Authorization: Bearer ${{{KEYS_VARIABLE}%%,*}}"' if self.environ.get(KEYS_VARIABLE) else ""
        return (
            f"{self.name} is ready after {time.monotonic() - process_began_at():.1f} s:\n"
            f"  HTTP  {url}  (every route: {url}/docs)\n"
            f"  gRPC  {authority(host, self.grpc_port)}\n"
            f"  Load  heddle top {' '.join((url, *watched))}\n"
            f"Try it:\n"
            f"  curl {url}{path}{key} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
        )

    @property
    def model_flags(self) -> tuple[str, ...]:
        """These must be the same for tokenizer and engine."""
        pooling = () if self.settings.pooling == "auto" else ("--pooling", self.settings.pooling)
        score_tokens = () if self.settings.score_tokens == AUTO else ("--score-tokens", self.settings.score_tokens)
        revision = ("--revision", self.revision) if self.revision else ()
        return ("--model", self.settings.model, *revision, *pooling, *score_tokens)

    @property
    def tls_flags(self) -> tuple[str, ...]:
        """TLS applies to ports only, not to the sockets between services."""
        settings = self.settings
        files = (("--tls-cert", settings.tls_cert), ("--tls-key", settings.tls_key), ("--tls-ca", settings.tls_ca))
        return tuple(word for flag, file in files if file for word in (flag, str(file)))

    @property
    def name(self) -> str:
        """Model name in requests."""
        return self.environ.get(NAME_VARIABLES[0]) or self.settings.model

    def address_of(self, name: str) -> str:
        return f"unix:{self.folder}/{name}"

    def _service(
        self,
        name: str,
        module: str,
        flags: Sequence[str],
        is_ready: Callable[[], Awaitable[bool]],
        sockets: Sequence[socket.socket] = (),
    ) -> Service:
        level: tuple[str, ...] = ("--log-level", self.settings.log_level)
        if self.settings.log_level == ServeSettings.log_level:
            level = self._flag_unless_set(f"{PREFIX_OF_SERVICE[module]}LOG_LEVEL", *level)
        log_format = self.settings.log_format
        if log_format != ServeSettings.log_format:
            level += self._flag_unless_set(f"{PREFIX_OF_SERVICE[module]}LOG_FORMAT", "--log-format", log_format)
        command = (sys.executable, "-m", module, *flags, *level, *self.trace_flags)
        return Service(name, command, is_ready, self.environ, sockets)

    @property
    def trace_flags(self) -> tuple[str, ...]:
        """Flags for traces that differ from the defaults. Otherwise the service's own variables apply."""
        settings = self.settings
        collector = ("--trace-collector", settings.trace_collector) if settings.trace_collector else ()
        is_default = settings.trace_ratio == ServeSettings.trace_ratio
        return (*collector, *(() if is_default else ("--trace-ratio", str(settings.trace_ratio))))

    def _flag_unless_set(self, variable: str, flag: str, value: str | int) -> tuple[str, ...]:
        """Nothing if the operator has set the service's own variable."""
        return () if self.environ.get(variable) else (flag, str(value))
