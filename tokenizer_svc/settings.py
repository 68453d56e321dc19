"""Settings of a tokenizer pod: a flag, else a HEDDLE_TOKENIZER_* variable, else the default here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heddle.checkpoint.language_models import AUTO, parse_score_tokens
from heddle.checkpoint.model_source import PACKAGED_NAME
from heddle.checkpoint.sentence_modules import PoolingSetting
from heddle.rpc.credentials import Access, ServerTls
from heddle.rpc.message_limits import MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX, check_message_bytes
from heddle.rpc.settings import at_least
from heddle.rpc.targets import check_targets
from heddle.telemetry.logs import LogFormat, LogLevel
from heddle.telemetry.trace_settings import check_ratio
from tokenizer_svc.text import rerank_prompts
from tokenizer_svc.text.loading.post_processor import EndToken

# Leaves room in a gRPC message for shapes, lengths and timings.
ANSWER_BYTES_MOST = MESSAGE_BYTES_MAX - (1 << 20)


@dataclass(frozen=True)
class TokenizerSettings:
    """Serves heddle.v1.InferenceService: tokenizes texts and spreads their sequences over engine pods."""

    # Addresses to listen on: host:port or unix:/path, several separated by commas.
    listen: tuple[str, ...] = ("127.0.0.1:50051",)
    # Engine pods: host:port or unix:/path, or dns:///name:port for every address behind a name.
    engines: tuple[str, ...] = ("127.0.0.1:50052",)
    # How submissions reach the engines. stream, the fastest: a long-lived stream to each engine pod; this process
    # chooses the pod by load. unary: a call for each submission, for a proxy or service mesh that balances calls. unary
    # needs a single target: the proxy, or a name whose addresses are weighted by the pods' load reports (ORCA).
    engine_transport: Literal["stream", "unary"] = "stream"
    # Sockets, unix:/path, that must exist before this process listens. `heddle serve` starts all services at once and
    # sets this, so that no port opens before the engine has accepted the model.
    listen_after: tuple[str, ...] = ()

    # Model

    # Hub name of the model, folder of a checkpoint, or address: s3://bucket/path, gs://bucket/path,
    # az://container/path, or https://host/path to an archive or a folder. Weights are not read.
    model: str = PACKAGED_NAME
    # Name of the model in requests; --model when empty.
    served_model_name: str = ""
    # Commit, branch or tag on the hub; the default branch when empty.
    revision: str = ""
    # How token vectors become one vector: auto follows the checkpoint; splade makes a sparse vector with a masked
    # language model. Must be the same for tokenizer and engine.
    pooling: PoolingSetting = "auto"
    # Tokens whose logits make the score of a causal language model that reranks, such as yes,no: ids, or spellings
    # from its vocabulary. auto takes them from the checkpoint's files, or from a list of known models. Must be the
    # same for tokenizer and engine.
    score_tokens: str = AUTO
    # Text put before each input whose request names no prompt. The checkpoint's own default applies when empty.
    default_prompt: str = ""
    # The same by name: one of the checkpoint's prompts.
    default_prompt_name: str = ""
    # Prompt of a reranker: auto uses the known prompt of the model, if any; none sends query and document as a pair;
    # otherwise qwen3-reranker, mxbai-rerank-v2, bge-reranker-gemma, or a text with {query} and {document}, and with
    # {instruction} if requests may set one.
    rerank_template: str = AUTO
    # Whether an embedder also reranks: a document's score is its cosine with the query. Both get the model's prompt
    # for queries or documents, if it has one (named query, and document or passage).
    rerank_by_cosine: bool = False
    # Whether every text ends with the tokenizer's end token. auto follows the checkpoint (add_eos_token of
    # tokenizer_config.json), append always adds it, file uses the special tokens of tokenizer.json alone.
    end_token: EndToken = "auto"

    # Access

    # Certificate with its chain, and key, both PEM, for addresses host:port; plaintext when unset. They are read again
    # when they change.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    # Authorities of client certificates, PEM. If set, callers need a certificate (mutual TLS).
    tls_ca: Path | None = None
    # API keys. Callers at host:port send one as metadata `authorization: Bearer KEY`; without keys, anybody may call.
    # Use the variable, not the flag: other users of the machine can see flags. Health checks need no key.
    api_keys: tuple[str, ...] = ()
    # File of further keys, one per line: a name, the key or sha256:HASH (its SHA-256 in hexadecimal digits), and
    # optionally the best priority that the key may ask for. Text after # is a comment. It is read again when it
    # changes.
    api_keys_file: Path | None = None

    # Access to engine pods

    # Authorities of the engine pods' certificates, PEM; plaintext when unset. This file and the next two are read again
    # when they change.
    engines_tls_ca: Path | None = None
    # Client certificate and key, PEM, for engine pods that require one.
    engines_tls_cert: Path | None = None
    engines_tls_key: Path | None = None
    # Name in the engine pods' certificates; the host of the target when empty.
    engines_tls_name: str = ""
    # API key for engine pods. Use the variable, not the flag.
    engines_key: str = ""
    # File that contains the key instead. It is read again when it changes.
    engines_key_file: Path | None = None

    # Limits

    # Whether texts that are too long are truncated or refused, if the request does not say.
    truncate: bool = True
    # The side that truncation removes, if the request does not say: right is the end. auto follows the checkpoint
    # (truncation_side of tokenizer_config.json, right by default).
    truncation_side: Literal["auto", "right", "left"] = "auto"
    # Inputs of one request.
    request_inputs_max: int = 2048
    # Sequences and tokens of one submission to an engine pod; a longer sequence is sent alone. The submission is the
    # unit of balancing and fairness.
    submission_sequences_max: int = 32
    submission_tokens_max: int = 4096
    # Bytes of one request to tokenize or decode, which is never truncated; each input counts 32 more.
    tokenize_bytes_max: int = 1 << 20
    # Bytes of one answer's vectors, scores or entities; at most 255 MiB.
    answer_bytes_max: int = 128 << 20
    # Bytes of all answers in progress or not yet sent. Beyond this, requests are refused as OVERLOADED.
    answers_bytes_max: int = 1 << 30
    # Bytes of one message from a client, from 1 MiB to 256 MiB. A larger message ends its stream or call. Memory is
    # held for unfinished messages too.
    message_bytes_max: int = REQUEST_BYTES_MAX
    # UTF-8 bytes of text that may wait to be tokenized; beyond them, requests are refused as OVERLOADED.
    queue_bytes_max: int = 256 << 20
    # Seconds that a request may wait to be tokenized, estimated from the measured speed. A request is refused as
    # OVERLOADED at once if it would wait longer, behind more than 200 turns of others, or would miss its deadline.
    # While requests are refused, the limit falls to a tenth within 6 seconds.
    queue_s_max: float = 5.0

    # Share of the work that may also be sent to a second engine pod, because the first is far slower than usual. 0
    # turns this off.
    engines_hedge_share: float = 0.05

    # Operation

    # Seconds that a stopping pod has to finish accepted requests.
    drain_s_max: float = 30.0
    # Seconds that a stopping pod still accepts requests and streams while its health check already fails, so that
    # proxies have time to notice.
    drain_delay_s: float = 0.0
    # Port of the Prometheus metrics, at /metrics. If it is in use, the pod takes the next free port above it. 0 means
    # any free port; none means no metrics.
    metrics_port: int | None = 9151
    # Address of the metrics port. When empty, the address of the first host:port of --listen, or else 127.0.0.1.
    metrics_host: str = ""
    # Also serve te_request_*, te_embed_* and te_predict_*, for dashboards of Text Embeddings Inference.
    tei_metrics: bool = False
    # OpenTelemetry collector that receives traces (OTLP over gRPC), such as http://localhost:4317. When empty, that of
    # OTEL_EXPORTER_OTLP_ENDPOINT; without either, there are no traces. The exporter's other OTEL_ variables apply too.
    trace_collector: str = ""
    # Share of requests that are traced, from 0 to 1. If a request has a traceparent, its sampled flag decides instead.
    trace_ratio: float = 0.01
    # Format of log lines.
    log_format: LogFormat = "text"
    # Lowest level that is logged.
    log_level: LogLevel = "info"

    def __post_init__(self) -> None:
        parse_score_tokens(self.score_tokens)
        ServerTls.from_settings(self.tls_cert, self.tls_key, self.tls_ca)
        self._check_engines()
        at_least(1, request_inputs_max=self.request_inputs_max, queue_bytes_max=self.queue_bytes_max)
        at_least(
            1,
            submission_sequences_max=self.submission_sequences_max,
            submission_tokens_max=self.submission_tokens_max,
        )
        at_least(1, tokenize_bytes_max=self.tokenize_bytes_max, answer_bytes_max=self.answer_bytes_max)
        if self.answer_bytes_max > ANSWER_BYTES_MOST:
            raise ValueError(f"answer_bytes_max must be at most {ANSWER_BYTES_MOST}, not {self.answer_bytes_max}")
        at_least(self.answer_bytes_max, answers_bytes_max=self.answers_bytes_max)
        at_least(0.001, queue_s_max=self.queue_s_max)
        check_message_bytes(self.message_bytes_max)
        rerank_prompts.parse_template(self.rerank_template)
        if self.default_prompt and self.default_prompt_name:
            raise ValueError("default_prompt and default_prompt_name exclude each other: set one of them")
        at_least(0, metrics_port=self.metrics_port, engines_hedge_share=self.engines_hedge_share)
        at_least(0, drain_s_max=self.drain_s_max, drain_delay_s=self.drain_delay_s)
        check_ratio(self.trace_ratio)

    def _check_engines(self) -> None:
        check_targets(*self.engines)
        if not self.engines:
            raise ValueError("engines must name at least one engine pod")
        if self.engine_transport == "unary" and len(self.engines) > 1:
            raise ValueError("engine_transport unary needs a single target in engines: a proxy, or dns:///name:port")
        _ = self.engines_access

    @property
    def tls(self) -> ServerTls | None:
        return ServerTls.from_settings(self.tls_cert, self.tls_key, self.tls_ca)

    @property
    def engines_access(self) -> Access:
        return Access.from_settings(
            "engines",
            ca=self.engines_tls_ca,
            cert=self.engines_tls_cert,
            tls_key=self.engines_tls_key,
            server_name=self.engines_tls_name,
            key=self.engines_key,
            key_file=self.engines_key_file,
        )
