"""`heddle serve`: all three services on this machine, over unix sockets, ready to use. Called by heddle.cli."""

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.commands import LIBRARY_OF_EXTRA, missing
from heddle.console import Console
from heddle.cores import usable_cores
from heddle.language_models import AUTO, parse_score_tokens
from heddle.model_source import PACKAGED_NAME, locate
from heddle.readiness import grpc_ready, http_ready
from heddle.rpc.credentials import ServerTls
from heddle.rpc.lifecycle import stop_on_signal
from heddle.rpc.listening import authority, usable_port
from heddle.rpc.settings import EXIT_MISCONFIGURED, KUBERNETES_LINK, ConfigurationError, at_least, load
from heddle.rpc.telemetry import LogLevel
from heddle.sentence_modules import PoolingSetting
from heddle.socket_folder import socket_folder
from heddle.supervisor import Service, ServiceGaveUpError, ServiceMisconfiguredError, Supervisor

# What the gateway takes its keys from; heddle.serve only asks whether there are any.
KEYS_VARIABLE = "HEDDLE_GATEWAY_API_KEYS"

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


@dataclass(frozen=True)
class ServeSettings:
    """Serves one model on this machine: HTTP and gRPC, with all services started, watched and stopped together.

    Finer settings of a service are taken from its own variables (HEDDLE_ENGINE_*, HEDDLE_TOKENIZER_*,
    HEDDLE_GATEWAY_*); `python -m engine_svc --help` and so on list them."""

    # Model

    # Hub name of the model, or folder of a checkpoint.
    model: str = PACKAGED_NAME
    # Branch, tag or commit of a hub model; main when empty. It is resolved once, so that all services load one commit.
    revision: str = ""
    # How tokens become one vector: auto is what the checkpoint says; splade makes a sparse one of a masked language
    # model.
    pooling: PoolingSetting = "auto"
    # Tokens whose logits make the score of a reranker that is a causal language model, such as yes,no: ids, or
    # spellings from its vocabulary. auto takes them from the checkpoint's files, or knows them by the model's name.
    score_tokens: str = AUTO
    # Number format of the computation; auto takes bfloat16 where the machine is fast at it, else float32, which a CPU
    # also takes for scores and sparse vectors.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    # What computes: torch, tensorrt_llm, auto, which is tensorrt_llm where it is installed and serves the model on this
    # GPU and torch otherwise, or simulated, which answers made-up vectors after a modelled time.
    engine: Literal["auto", "torch", "tensorrt_llm", "simulated"] = "torch"
    # Engine processes; they share the CPU cores.
    engines: int = 1

    # Addresses

    # Address to listen on; 0.0.0.0 lets other machines in.
    host: str = "127.0.0.1"
    # Port of the HTTP API; 0 takes a free one.
    http_port: int = 8080
    # Port of the gRPC API; 0 takes a free one.
    grpc_port: int = 50051

    # Certificate (with those between it and a root) and its key, PEM, of both APIs; plaintext when unset.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    # Authorities, PEM: callers of both APIs must have a certificate of one of them (mutual TLS).
    tls_ca: Path | None = None

    # Operation

    # Least severe log lines of the services that are shown.
    log_level: LogLevel = "warning"

    def __post_init__(self) -> None:
        parse_score_tokens(self.score_tokens)
        at_least(1, engines=self.engines)
        at_least(0, http_port=self.http_port, grpc_port=self.grpc_port)
        ServerTls.of(self.tls_cert, self.tls_key, self.tls_ca)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serves until a signal; returns the exit code."""
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
            http_port=usable_port(settings.host, settings.http_port),
            grpc_port=usable_port(settings.host, settings.grpc_port),
            environ=environ,
        )
        await Supervisor(machine.tiers(), console).run(
            stop,
            loading=f"loading {settings.model}",
            when_ready=lambda seconds: print(machine.welcome(seconds), flush=True),
        )


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
            *(() if settings.dtype == "auto" else ("--dtype", settings.dtype)),
            *self._unless_set("HEDDLE_ENGINE_THREADS", "--threads", str(max(1, usable_cores() // settings.engines))),
        )
        name = f"engine {index}" if settings.engines > 1 else "engine"
        return self._service(name, "engine_svc", flags, lambda: grpc_ready(address, "heddle.v1.EngineService"))

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
