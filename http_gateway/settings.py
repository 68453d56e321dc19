"""What can be set of a gateway: flag, else HEDDLE_GATEWAY_* variable, else the default here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heddle.rpc.priorities import PRIORITY_MAX
from heddle.rpc.settings import at_least
from heddle.rpc.target import check_targets
from heddle.rpc.telemetry import LogFormat, LogLevel
from http_gateway.cors import check_origins

# What a target may begin with; an `=` further on is then part of a path.
SCHEMES = ("unix:", "dns:")


@dataclass(frozen=True)
class GatewaySettings:
    """HTTP in, gRPC out: answers the APIs of OpenAI, BEI, TEI, Cohere and Jina through tokenizer pods (heddle.v1)."""

    # Address to listen on; 0.0.0.0 lets other machines in.
    host: str = "127.0.0.1"
    # Port to listen on; 0 takes a free one.
    port: int = 8080
    # Tokenizer pods: host:port or unix:/path, or dns:///name:port for every address behind a name. With name=target
    # requests that name that model go there; repeat a name for several pods of one model.
    tokenizers: tuple[str, ...] = ("127.0.0.1:50051",)

    # Access

    # Keys that callers may use, as Bearer or Api-Key; none lets everybody in. Better set by variable than by flag.
    api_keys: tuple[str, ...] = ()
    # File with further keys, one a line: a name, the key or sha256: and its SHA-256 in hexadecimal digits, and the best
    # priority that the key may ask for, which can be left out. What follows # is a comment.
    api_keys_file: Path | None = None
    # Best priority of requests whose key states none of its own, and the one that they have unless the header
    # x-heddle-priority states another. 0 is the highest; larger numbers are served later.
    best_priority: int = 0
    # Proxies in front of the gateway that add the address of their caller to x-forwarded-for. Without keys and users,
    # callers share the engines by address; with 0 it is that of the connection.
    trusted_proxies: int = 0
    # Whether token ids are taken as input. They are meaningless unless made by the served model's own tokenizer.
    trust_token_ids: bool = False
    # Whether a request must name the served model as it is called; otherwise, where one is served, any name will do.
    strict_model_names: bool = False

    # Origins whose pages may call from a browser, such as https://app.example.com, or * for all; none lets no page in.
    cors_origins: tuple[str, ...] = ()

    # Routes

    # Path that requests to Baseten's /environments/.../predict go to. When empty, the one for what the model is for:
    # /v1/embeddings, /embed_all, /embed_sparse, /predict or /predict_tokens; of a reranker /rerank for a body with a
    # query, otherwise /predict. It is one for all requests: where several models are served, the one for the first of
    # them, whichever model a request names.
    default_route: str = ""
    # Status of input that is over a limit. None: what the clients of each API expect, which is 400 on OpenAI's and
    # Cohere's routes and 413 on TEI's and BEI's. TEI has 422 since 1.9. A body of too many bytes is always 413.
    over_limit_status: Literal["400", "413", "422"] | None = None
    # Bytes from which on answers are compressed, for callers that accept zstd or gzip.
    compressed_bytes_min: int = 16384

    # Limits

    # Seconds that a request may take, from its first byte to its answer.
    timeout_s: float = 60.0
    # Seconds for which the reader of an answer may take nothing of it; then its connection is closed. What fits into
    # the kernel's buffers, a few megabytes, counts as taken, so that the default asks for about 75 kB per second.
    stall_s_max: float = 20.0
    # Bytes of one request's body; the default has room for 2048 inputs of 4 KiB.
    request_bytes_max: int = 8 << 20
    # Inputs of one request.
    request_inputs_max: int = 2048
    # Requests that are answered at the same time; beyond them 429.
    requests_max: int = 2048
    # Bytes of the bodies of those requests; beyond them 429.
    bodies_bytes_max: int = 256 << 20
    # Bytes of their answers, from when they are made until they have left; beyond them 429. Those of 128 KiB and less
    # leave the count as soon as they are handed to the server.
    answers_bytes_max: int = 1 << 30
    # Open connections; beyond them new ones wait to be accepted.
    connections_max: int = 4096

    # Operation

    # Seconds that a stopping gateway takes to finish what it accepted.
    drain_s_max: float = 30.0
    # Log lines for people or for machines.
    log_format: LogFormat = "text"
    # Least severe log lines that are written; info has one for each request.
    log_level: LogLevel = "info"

    def __post_init__(self) -> None:
        at_least(0, port=self.port, drain_s_max=self.drain_s_max)
        at_least(0.001, timeout_s=self.timeout_s, stall_s_max=self.stall_s_max)
        at_least(1, request_bytes_max=self.request_bytes_max, request_inputs_max=self.request_inputs_max)
        at_least(1, requests_max=self.requests_max, connections_max=self.connections_max)
        at_least(1, answers_bytes_max=self.answers_bytes_max)
        at_least(self.request_bytes_max, bodies_bytes_max=self.bodies_bytes_max)
        at_least(0, compressed_bytes_min=self.compressed_bytes_min)
        at_least(0, best_priority=self.best_priority, trusted_proxies=self.trusted_proxies)
        if self.best_priority > PRIORITY_MAX:
            raise ValueError(f"best_priority must be at most {PRIORITY_MAX}, not {self.best_priority}")
        if self.default_route and not self.default_route.startswith("/"):
            raise ValueError("default_route must be a path, such as /v1/embeddings")
        check_origins(self.cors_origins)
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
