"""Settings of a gateway. A flag comes first, then a HEDDLE_GATEWAY_* variable, then the default here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heddle.rpc.credentials import Access, ServerTls
from heddle.rpc.fairness import PRIORITY_MAX, is_priority
from heddle.rpc.settings import at_least
from heddle.rpc.targets import check_targets
from heddle.telemetry.logs import LogFormat, LogLevel
from heddle.telemetry.trace_settings import check_ratio
from http_gateway.web.cors import check_origins

# What a target may begin with; an `=` further on is then part of a path.
SCHEMES = ("unix:", "dns:")


@dataclass(frozen=True)
class GatewaySettings:
    """HTTP in, gRPC out: serves the APIs of OpenAI, BEI, TEI, Cohere, Jina, vLLM and others from tokenizer pods."""

    # Address to listen on; 0.0.0.0 accepts connections from other machines.
    host: str = "127.0.0.1"
    # Port to listen on; 0 takes a free one.
    port: int = 8080
    # File descriptor to listen on instead of host and port: a bound TCP socket that the parent process keeps open, so
    # that connections wait while this process is restarted. 3 for a systemd socket unit.
    listen_fd: int | None = None
    # Extra port for probes and metrics (/live, /ready, /health, /metrics), on the same host and without TLS. It answers
    # however many connections the API port has. The API port serves these routes too. None when unset.
    operations_port: int | None = None
    # Unix socket to serve on as well, without TLS, for health probes on this machine. The permissions of its folder say
    # who may connect.
    unix_socket: Path | None = None
    # Tokenizer pods: host:port or unix:/path, or dns:///name:port for every address behind a name. name=target sends
    # requests for that model there; repeat a name for several pods of one model.
    tokenizers: tuple[str, ...] = ("127.0.0.1:50051",)
    # Sockets, unix:/path, that must exist before this process listens. `heddle serve` starts all services at once and
    # sets this, so that no port opens before the engine has accepted the model.
    listen_after: tuple[str, ...] = ()

    # Access

    # Certificate (with those between it and a root) and its key, PEM: HTTPS; plaintext HTTP when unset. These files and
    # the next one are read again when they change.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    # Authorities, PEM: callers must have a certificate of one of them (mutual TLS).
    tls_ca: Path | None = None
    # Keys that callers may use, as Bearer or Api-Key. Without keys, everybody may call. Set them by variable, not by
    # flag: other users of the machine can see flags.
    api_keys: tuple[str, ...] = ()
    # File of further keys, one per line: a name, the key or sha256:HASH (its SHA-256 in hexadecimal digits), and
    # optionally the best priority that the key may ask for. Everything after # is a comment.
    api_keys_file: Path | None = None
    # Best priority of requests whose key has none of its own. It is also their priority unless the header
    # x-heddle-priority asks for another. 0 is the best; larger numbers are served later.
    best_priority: int = 0
    # Priorities by objective, as name=priority, for requests whose header x-llm-d-inference-objective names one.
    # x-heddle-priority takes precedence. They are never better than the best priority of the key.
    objectives: tuple[str, ...] = ()
    # Number of proxies in front of the gateway that add their caller's address to x-forwarded-for. Callers without key
    # and user share the engines by that address; with 0, by the address of the connection.
    trusted_proxies: int = 0
    # Accept token ids as input. They are meaningless unless the served model's own tokenizer made them.
    trust_token_ids: bool = False
    # Require requests to name the served model exactly. Otherwise a gateway of one model accepts any name.
    strict_model_names: bool = False

    # Access to tokenizer pods

    # Authorities, PEM, that the certificates of tokenizer pods must be of; plaintext when unset. This file and the next
    # two are read again when they change.
    tokenizers_tls_ca: Path | None = None
    # Certificate and key that are shown to tokenizer pods which ask for one, PEM.
    tokenizers_tls_cert: Path | None = None
    tokenizers_tls_key: Path | None = None
    # Name that the certificates of tokenizer pods must be for; empty takes the host of the target.
    tokenizers_tls_name: str = ""
    # Key that tokenizer pods are shown. Set it by variable, not by flag.
    tokenizers_key: str = ""
    # File that holds the key instead; it is read again when it changes.
    tokenizers_key_file: Path | None = None

    # Browsers

    # Origins whose pages may call from a browser, such as https://app.example.com, or * for all. Empty allows none.
    cors_origins: tuple[str, ...] = ()

    # Routes

    # Path of the route that answers POST / and Baseten's /environments/.../predict. When empty, the model's task
    # decides: /v1/embeddings, /embed_all, /embed_sparse, /predict or /predict_tokens; for a reranker, /rerank if the
    # body has a query, else /predict. With several models, the first one's task decides for all requests.
    default_route: str = ""
    # HTTP status for input over a limit. None: 400 on OpenAI's and Cohere's routes and 413 on TEI's and BEI's, as their
    # clients expect (TEI itself answers 422 since 1.9). A body of too many bytes is always 413.
    over_limit_status: Literal["400", "413", "422"] | None = None
    # Smallest answer in bytes that is compressed, for callers that accept zstd or gzip.
    compressed_bytes_min: int = 16384

    # Limits

    # Seconds that a request may take, from its headers to its answer.
    timeout_s: float = 60.0
    # Seconds after which a caller that reads nothing of its answer is disconnected. The kernel's buffers, a few
    # megabytes, count as read, so the default requires about 75 kB per second.
    stall_s_max: float = 20.0
    # Bytes of one request's body; the default has room for 2048 inputs of 4 KiB.
    request_bytes_max: int = 8 << 20
    # Inputs of one request.
    request_inputs_max: int = 2048
    # Requests in progress, from when their bodies are complete; beyond this 429.
    requests_max: int = 2048
    # Bytes of the bodies of those requests; beyond this 429.
    bodies_bytes_max: int = 256 << 20
    # Bodies that arrive at the same time, at most half of connections_max. Beyond this, the slowest are ended with 408.
    waiting_bodies_max: int = 2048
    # Bytes received of arriving bodies larger than 64 KiB. Beyond this, slow bodies are ended with 408; if none is
    # slow, the growing one is refused with 429.
    waiting_bodies_bytes_max: int = 256 << 20
    # Seconds that a body may pause; then 408.
    body_pause_s_max: float = 20.0
    # Bytes of answers in progress, until they are sent; beyond this 429. Answers of up to 128 KiB count only until they
    # are handed to the HTTP server.
    answers_bytes_max: int = 1 << 30
    # Open connections. Each needs one of the files that the process may open (ulimit -n). Near the limit, those that
    # have been idle longest are closed. Beyond it, new ones wait to be accepted.
    connections_max: int = 8192

    # Share of the work that may also be sent to a second tokenizer pod, because the first has fallen silent. 0 turns
    # this off.
    tokenizers_hedge_share: float = 0.05

    # Operation

    # Seconds that a stopping gateway takes to finish what it accepted.
    drain_s_max: float = 30.0
    # Seconds that a stopping gateway still accepts requests while /ready already fails, so that proxies have time to
    # notice.
    drain_delay_s: float = 0.0
    # OpenTelemetry collector that receives traces (OTLP over gRPC), such as http://localhost:4317. When empty, that of
    # OTEL_EXPORTER_OTLP_ENDPOINT; without either, there are no traces. The exporter's other OTEL_ variables apply too.
    trace_collector: str = ""
    # Share of requests that are traced, from 0 to 1. If a request has a traceparent, its sampled flag decides instead.
    trace_ratio: float = 0.01
    # Whether a caller's traceparent decides if its request is traced. If not, the trace continues, but trace_ratio
    # decides, so that callers cannot have everything traced.
    trust_traceparent: bool = True
    # Log lines for people or for machines.
    log_format: LogFormat = "text"
    # Least severe log lines that are written; info has one for each request.
    log_level: LogLevel = "info"
    # Log the body of each request, at level info. Otherwise the log never contains what callers send.
    log_requests: bool = False
    # Characters of each body that are logged.
    log_request_characters_max: int = 1000

    def __post_init__(self) -> None:
        at_least(0, port=self.port, drain_s_max=self.drain_s_max, drain_delay_s=self.drain_delay_s)
        at_least(0, listen_fd=self.listen_fd or 0, operations_port=self.operations_port or 0)
        at_least(1, log_request_characters_max=self.log_request_characters_max)
        check_ratio(self.trace_ratio)
        at_least(0.001, timeout_s=self.timeout_s, stall_s_max=self.stall_s_max)
        at_least(1, request_bytes_max=self.request_bytes_max, request_inputs_max=self.request_inputs_max)
        at_least(1, requests_max=self.requests_max, connections_max=self.connections_max)
        at_least(1, answers_bytes_max=self.answers_bytes_max)
        at_least(self.request_bytes_max, bodies_bytes_max=self.bodies_bytes_max)
        at_least(self.request_bytes_max, waiting_bodies_bytes_max=self.waiting_bodies_bytes_max)
        at_least(1, waiting_bodies_max=self.waiting_bodies_max)
        at_least(0.1, body_pause_s_max=self.body_pause_s_max)
        at_least(0, compressed_bytes_min=self.compressed_bytes_min)
        at_least(0, best_priority=self.best_priority, trusted_proxies=self.trusted_proxies)
        at_least(0, tokenizers_hedge_share=self.tokenizers_hedge_share)
        if self.best_priority > PRIORITY_MAX:
            raise ValueError(f"best_priority must be at most {PRIORITY_MAX}, not {self.best_priority}")
        _ = self.priority_by_objective
        if self.default_route and not self.default_route.startswith("/"):
            raise ValueError("default_route must be a path, such as /v1/embeddings")
        check_origins(self.cors_origins)
        ServerTls.from_settings(self.tls_cert, self.tls_key, self.tls_ca)
        _ = self.tokenizers_access
        if not self.tokenizers:
            raise ValueError("tokenizers must name at least one tokenizer pod")
        if len(self.targets_by_model) > 1 and "" in self.targets_by_model:
            raise ValueError("tokenizers must be all of the form name=target, or none of them")

        for targets in self.targets_by_model.values():
            check_targets(*targets)

    @property
    def targets_by_model(self) -> dict[str, list[str]]:
        """Tokenizer pods of each model; the name "" stands for whatever the pods serve."""
        targets: dict[str, list[str]] = {}
        for entry in self.tokenizers:
            name, equals, target = entry.partition("=")
            if not equals or entry.startswith(SCHEMES):
                name, target = "", entry
            targets.setdefault(name, []).append(target)
        return targets

    @property
    def priority_by_objective(self) -> dict[str, int]:
        priorities = {}
        for entry in self.objectives:
            name, _, priority = entry.rpartition("=")
            if not name or not is_priority(priority):
                raise ValueError(f"objectives must be of the form name=priority, not {entry!r}")
            priorities[name] = int(priority)
        return priorities

    @property
    def tls(self) -> ServerTls | None:
        return ServerTls.from_settings(self.tls_cert, self.tls_key, self.tls_ca)

    @property
    def tokenizers_access(self) -> Access:
        return Access.from_settings(
            "tokenizers",
            ca=self.tokenizers_tls_ca,
            cert=self.tokenizers_tls_cert,
            tls_key=self.tokenizers_tls_key,
            server_name=self.tokenizers_tls_name,
            key=self.tokenizers_key,
            key_file=self.tokenizers_key_file,
        )
