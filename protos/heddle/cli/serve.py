"""`heddle serve`: all three services on this machine, over unix sockets, ready to use. Called by `main`."""

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.language_models import AUTO
from heddle.checkpoint.model_source import locate
from heddle.cli.commands import LIBRARY_OF_EXTRA, missing
from heddle.cli.config_command import apply_config_file
from heddle.cli.console import Console
from heddle.cli.readiness import grpc_ready, http_ready
from heddle.cli.serve_settings import ServeSettings
from heddle.cli.socket_folder import socket_folder
from heddle.cli.supervisor import Service, ServiceGaveUpError, ServiceMisconfiguredError, Supervisor
from heddle.machine import usable_cores, visible_gpus
from heddle.rpc.lifecycle import stop_on_signal
from heddle.rpc.listening import authority, usable_port
from heddle.rpc.settings import EXIT_MISCONFIGURED, KUBERNETES_LINK, ConfigurationError, load

# What the gateway takes its keys from; `serve` only asks whether there are any.
KEYS_VARIABLE = "HEDDLE_GATEWAY_API_KEYS"

DEVICE_VARIABLE = "HEDDLE_ENGINE_DEVICE"

VARIABLES_OF = {
    "engine_svc": "HEDDLE_ENGINE_",
    "tokenizer_svc": "HEDDLE_TOKENIZER_",
    "http_gateway": "HEDDLE_GATEWAY_",
}

SERVE_VARIABLES = "HEDDLE_SERVE_"
PREFIXES = (SERVE_VARIABLES, *VARIABLES_OF.values(), "HEDDLE_PLAN_")

# What is decided here for a service, whose own variable for it would have no effect.
DECIDED_VARIABLES = frozenset(
    {
        *("HEDDLE_ENGINE_LISTEN", "HEDDLE_ENGINE_MODEL", "HEDDLE_ENGINE_REVISION", "HEDDLE_ENGINE_BACKEND"),
        *("HEDDLE_TOKENIZER_LISTEN", "HEDDLE_TOKENIZER_MODEL", "HEDDLE_TOKENIZER_REVISION"),
        "HEDDLE_TOKENIZER_ENGINES",
        *("HEDDLE_GATEWAY_HOST", "HEDDLE_GATEWAY_PORT", "HEDDLE_GATEWAY_TOKENIZERS"),
        *("HEDDLE_TOKENIZER_TLS_CERT", "HEDDLE_TOKENIZER_TLS_KEY", "HEDDLE_TOKENIZER_TLS_CA"),
        *("HEDDLE_GATEWAY_TLS_CERT", "HEDDLE_GATEWAY_TLS_KEY", "HEDDLE_GATEWAY_TLS_CA"),
    }
)

# A wildcard address is nothing to connect to.
REACHABLE_AS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


# Something to try with each kind of model.
EXAMPLES: Mapping[ModelKind, tuple[str, Mapping[str, object]]] = {
    ModelKind.EMBEDDER: ("/v1/embeddings", {"input": "Hello, loom"}),
    ModelKind.MULTI_VECTOR_EMBEDDER: ("/embed_all", {"inputs": "Hello, loom"}),
    ModelKind.SPARSE_EMBEDDER: ("/embed_sparse", {"inputs": "Hello, loom"}),
    ModelKind.RERANKER: ("/rerank", {"query": "What is a loom?", "texts": ["It weaves cloth.", "It is raining."]}),
    ModelKind.CLASSIFIER: ("/predict", {"inputs": "I love this loom"}),
    ModelKind.TOKEN_CLASSIFIER: ("/predict_tokens", {"inputs": "Ada lives in London", "aggregation_strategy": "max"}),
}


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serves until a signal; returns the exit code."""
    argv, environ = apply_config_file(argv, environ)
    settings = load(ServeSettings, argv, environ, prog="heddle serve", env_prefix=SERVE_VARIABLES)
    console = Console()
    try:
        check_variables(environ)
        asyncio.run(serve(settings, checked(settings), environ, console))
    except ServiceMisconfiguredError:
        return EXIT_MISCONFIGURED
    except ConfigurationError as error:
        console.line(f"heddle: {error}")
        return EXIT_MISCONFIGURED
    except ServiceGaveUpError as error:
        console.line(f"heddle: {error}")
        return 1
    return 0


def check_variables(environ: Mapping[str, str]) -> None:
    """Raises ConfigurationError for a variable that would have no effect."""
    for name in sorted(DECIDED_VARIABLES):
        if environ.get(name):
            raise ConfigurationError(f"{name} has no effect on heddle serve, whose own flags say this")
    for name, value in sorted(environ.items()):
        is_ours = name.startswith("HEDDLE_") and not KUBERNETES_LINK.fullmatch(f"{name}={value}")
        if is_ours and not name.startswith(PREFIXES):
            raise ConfigurationError(
                f"unknown environment variable {name}: it begins with none of {', '.join(PREFIXES)}"
            )


def checked(settings: ServeSettings) -> Checkpoint:
    """Reads the checkpoint before any service starts, so that an error is reported once and not by every service.
    Fetches the model if need be."""
    if absent := missing(LIBRARY_OF_EXTRA):
        raise ConfigurationError(f"not installed: the {' and '.join(absent)} service; pip install 'heddle[local]'")
    return Checkpoint.read(
        locate(settings.model, settings.revision or None),
        settings.model,
        pooling=settings.pooling,
        score_tokens=settings.score_tokens,
    )


async def serve(settings: ServeSettings, checkpoint: Checkpoint, environ: Mapping[str, str], console: Console) -> None:
    with socket_folder(environ) as sockets:
        stop = stop_on_signal(before_leaving=sockets.remove)
        machine = Machine(
            settings,
            checkpoint.kind,
            str(sockets.path),
            revision=checkpoint.revision,
            gpus=gpus_of(settings, environ),
            http_port=usable_port(settings.host, settings.http_port),
            grpc_port=usable_port(settings.host, settings.grpc_port),
            environ=environ,
        )
        if settings.engines < machine.gpus:
            console.line(f"uses {settings.engines} of {machine.gpus} GPUs; --engines {machine.gpus} uses all")
        await Supervisor(machine.tiers(), console).run(
            stop,
            loading=f"loading {settings.model}",
            when_ready=lambda seconds: print(machine.welcome(seconds), flush=True),
        )


def gpus_of(settings: ServeSettings, environ: Mapping[str, str]) -> int:
    """How many GPUs the engines are spread over: 0 if there are none, or if the device is chosen."""
    is_chosen = settings.engine == "simulated" or settings.device != "auto" or environ.get(DEVICE_VARIABLE)
    return 0 if is_chosen else len(visible_gpus(environ))


@dataclass(frozen=True)
class Machine:
    """The services of one machine: how each is started, and where it is reached."""

    settings: ServeSettings
    kind: ModelKind
    folder: str  # of the sockets between services
    revision: str  # commit of the hub model; "" for a folder
    http_port: int
    grpc_port: int
    environ: Mapping[str, str]
    gpus: int = 0  # that the engines are spread over

    def tiers(self) -> list[list[Service]]:
        """In the order in which they are stopped: callers first."""
        return [[self.gateway()], [self.tokenizer()], [self.engine(index) for index in range(self.settings.engines)]]

    def gateway(self) -> Service:
        flags = ("--host", self.settings.host, "--port", str(self.http_port), "--tokenizers", self.tokenizer_address)
        return self._service(
            *("gateway", "http_gateway", (*flags, *self.tls_flags)),
            lambda: http_ready(self.host, self.http_port, tls=self.settings.tls_cert is not None),
            after=[self.tokenizer_address],
        )

    def tokenizer(self) -> Service:
        listen = f"{self.tokenizer_address},{authority(self.settings.host, self.grpc_port)}"
        engines = ",".join(self.engine_address(index) for index in range(self.settings.engines))
        flags = (*self.model_flags, "--listen", listen, "--engines", engines, *self.tls_flags)
        return self._service(
            *("tokenizer", "tokenizer_svc", flags),
            lambda: grpc_ready(self.tokenizer_address, "heddle.v1.InferenceService"),
            after=[self.engine_address(index) for index in range(self.settings.engines)],
        )

    def engine(self, index: int) -> Service:
        settings, address = self.settings, self.engine_address(index)
        flags = (
            *self.model_flags,
            *("--listen", address, "--backend", settings.engine),
            *self.device_flags(index),
            *(() if settings.dtype == "auto" else ("--dtype", settings.dtype)),
            *(() if settings.quantization == "no_quant" else ("--quantization", settings.quantization)),
            *self._unless_set("HEDDLE_ENGINE_THREADS", "--threads", str(max(1, usable_cores() // settings.engines))),
        )
        name = f"engine {index}" if settings.engines > 1 else "engine"
        return self._service(name, "engine_svc", flags, lambda: grpc_ready(address, "heddle.v1.EngineService"))

    def device_flags(self, index: int) -> tuple[str, ...]:
        """Empty if the engine finds the right device itself."""
        if self.settings.device != "auto":
            return ("--device", self.settings.device)
        is_spread = self.gpus > 1 and self.settings.engines > 1
        return ("--device", f"cuda:{index % self.gpus}") if is_spread else ()

    def welcome(self, seconds: float) -> str:
        url = f"{'https' if self.settings.tls_cert else 'http'}://{authority(self.host, self.http_port)}"
        path, example = EXAMPLES[self.kind]
        body = json.dumps({"model": self.settings.model, **example}, ensure_ascii=False)
        # The first of several keys, by the shell that runs the line: a key itself is nothing to show.
        key = f' -H "Authorization: Bearer ${{{KEYS_VARIABLE}%%,*}}"' if self.environ.get(KEYS_VARIABLE) else ""
        return (
            f"{self.settings.model} is ready after {seconds:.1f} s:\n"
            f"  HTTP  {url}  (every route: {url}/docs)\n"
            f"  gRPC  {authority(self.host, self.grpc_port)}\n"
            f"Try it:\n"
            f"  curl {url}{path}{key} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
        )

    @property
    def host(self) -> str:
        """Where this machine itself reaches what listens on `settings.host`."""
        return REACHABLE_AS.get(self.settings.host, self.settings.host)

    @property
    def model_flags(self) -> tuple[str, ...]:
        """Flags that must be the same for tokenizer and engine."""
        pooling = () if self.settings.pooling == "auto" else ("--pooling", self.settings.pooling)
        score_tokens = () if self.settings.score_tokens == AUTO else ("--score-tokens", self.settings.score_tokens)
        revision = ("--revision", self.revision) if self.revision else ()
        return ("--model", self.settings.model, *revision, *pooling, *score_tokens)

    @property
    def tls_flags(self) -> tuple[str, ...]:
        """The sockets between the services have no TLS."""
        settings = self.settings
        files = (("--tls-cert", settings.tls_cert), ("--tls-key", settings.tls_key), ("--tls-ca", settings.tls_ca))
        return tuple(word for flag, file in files if file for word in (flag, str(file)))

    @property
    def tokenizer_address(self) -> str:
        return f"unix:{self.folder}/tokenizer"

    def engine_address(self, index: int) -> str:
        return f"unix:{self.folder}/engine-{index}"

    def _service(
        self,
        name: str,
        module: str,
        flags: Sequence[str],
        is_ready: Callable[[], Awaitable[bool]],
        *,
        after: Sequence[str] = (),
    ) -> Service:
        """Starts when there is somebody at each of the sockets `after`: a service that finds its model wrong says so
        before it listens, and then none that others can reach has been started."""
        level: tuple[str, ...] = ("--log-level", self.settings.log_level)
        if self.settings.log_level == ServeSettings.log_level:
            level = self._unless_set(f"{VARIABLES_OF[module]}LOG_LEVEL", *level)
        sockets = [Path(address.removeprefix("unix:")) for address in after]
        return Service(
            *(name, (sys.executable, "-m", module, *flags, *level), is_ready, self.environ),
            may_start=lambda: all(socket.exists() for socket in sockets),
        )

    def _unless_set(self, variable: str, *flag: str) -> tuple[str, ...]:
        """The flag, but for an operator who has set the service's own variable for it."""
        return () if self.environ.get(variable) else flag
