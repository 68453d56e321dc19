"""What can be set of a tokenizer pod: flag, else HEDDLE_TOKENIZER_* variable, else the default here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heddle.checkpoint.language_models import AUTO, parse_score_tokens
from heddle.checkpoint.model_source import PACKAGED_NAME
from heddle.checkpoint.sentence_modules import PoolingSetting
from heddle.rpc.channels import MESSAGE_BYTES_MAX
from heddle.rpc.credentials import Access, ServerTls
from heddle.rpc.settings import at_least
from heddle.rpc.target import check_targets
from heddle.rpc.telemetry import LogFormat, LogLevel
from tokenizer_svc.text import rerank_prompts
from tokenizer_svc.text.loading.framing import EndToken

# Leaves room in a gRPC message for what comes with vectors: shapes, lengths, timings.
ANSWER_BYTES_MOST = MESSAGE_BYTES_MAX - (1 << 20)


@dataclass(frozen=True)
class TokenizerSettings:
    """Text in, answers out, over gRPC (heddle.v1.InferenceService): tokenizes and spreads the work over engine pods."""

    # Addresses to listen on: host:port or unix:/path, several separated by commas.
    listen: tuple[str, ...] = ("127.0.0.1:50051",)
    # Engine pods: host:port or unix:/path, or dns:///name:port for every address behind a name.
    engines: tuple[str, ...] = ("127.0.0.1:50052",)

    # Model

    # Hub name of the model, or folder of a checkpoint; only configuration and tokenizer are read.
    model: str = PACKAGED_NAME
    # Name that requests use for the model; as --model when empty.
    served_model_name: str = ""
    # Commit, branch or tag on the hub; the default branch when empty.
    revision: str = ""
    # How tokens become one vector: auto is what the checkpoint says; splade makes a sparse one of a masked language
    # model. Tokenizer and engine must be set alike.
    pooling: PoolingSetting = "auto"
    # Tokens whose logits make the score of a reranker that is a causal language model, such as yes,no: ids, or
    # spellings from its vocabulary. auto takes them from the checkpoint's files, or knows them by the model's name.
    # Tokenizer and engine must be set alike.
    score_tokens: str = AUTO
    # Text put before each input whose request names no prompt. The checkpoint's own default applies when empty.
    default_prompt: str = ""
    # The same by name: one of the checkpoint's prompts.
    default_prompt_name: str = ""
    # Prompt of a reranker: auto takes the one that is known for the model, if any; none joins query and document as
    # the tokenizer joins a pair; otherwise qwen3-reranker, mxbai-rerank-v2, bge-reranker-gemma, or a text that holds
    # {query} and {document}, and {instruction} where requests may bring one.
    rerank_template: str = AUTO
    # Whether an embedder also reranks: the score of a document is its cosine with the query. Both get the model's
    # prompt for queries or documents (such as the prompts named query, and document or passage), if it has one.
    rerank_by_cosine: bool = False
    # Whether every text ends with the tokenizer's end token. auto follows the checkpoint (add_eos_token of
    # tokenizer_config.json), append always adds it, file uses the special tokens of tokenizer.json alone.
    end_token: EndToken = "auto"

    # Access

    # Certificate (with those between it and a root) and its key, PEM, for the addresses host:port; plaintext when
    # unset. Both are read again when they change.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    # Authorities, PEM: callers must have a certificate of one of them (mutual TLS).
    tls_ca: Path | None = None
    # Keys that callers at host:port need, as metadata `authorization: Bearer KEY`; without keys, everybody may call.
    # Set them by variable, not by flag: other users of the machine can see flags. Health checks need none.
    api_keys: tuple[str, ...] = ()
    # File of further keys, one per line: a name, the key or sha256:HASH (its SHA-256 in hexadecimal digits), and
    # optionally the best priority that the key may ask for. Everything after # is a comment.
    api_keys_file: Path | None = None

    # Access to engine pods

    # Authorities, PEM, that the certificates of engine pods must be of; plaintext when unset. This file and the next
    # two are read again when they change.
    engines_tls_ca: Path | None = None
    # Certificate and key that are shown to engine pods which ask for one, PEM.
    engines_tls_cert: Path | None = None
    engines_tls_key: Path | None = None
    # Name that the certificates of engine pods must be for; empty takes the host of the target.
    engines_tls_name: str = ""
    # Key that engine pods are shown. Set it by variable, not by flag.
    engines_key: str = ""
    # File that holds the key instead; it is read again when it changes.
    engines_key_file: Path | None = None

    # Limits

    # Whether a text that is too long is cut, where the request does not say; otherwise it is refused.
    truncate: bool = True
    # Which side of a text that is too long is cut off, if the request does not say: right cuts its end. auto follows
    # the checkpoint (truncation_side of tokenizer_config.json), which cuts the right side by default.
    truncation_side: Literal["auto", "right", "left"] = "auto"
    # Inputs of one request.
    request_inputs_max: int = 2048
    # Sequences of one submission to an engine pod, and their tokens; a longer sequence is sent alone. Submissions are
    # what engine pods are balanced by and take turns with.
    submission_sequences_max: int = 32
    submission_tokens_max: int = 4096
    # Bytes of one request to tokenize or decode, of which nothing is cut off; each input counts for 32 more.
    tokenize_bytes_max: int = 1 << 20
    # Bytes of the answer to one request, as far as it is vectors, scores or entities; at most 255 MiB.
    answer_bytes_max: int = 128 << 20
    # Bytes of all answers that are being put together, so far as they are known; beyond them new ones are refused as
    # OVERLOADED.
    answers_bytes_max: int = 1 << 30
    # UTF-8 bytes of text that may wait to be tokenized; beyond them new requests are refused as OVERLOADED.
    queue_bytes_max: int = 256 << 20

    # Operation

    # Seconds that a stopping pod takes to finish what it accepted.
    drain_s_max: float = 30.0
    # Port of the Prometheus metrics; none serves none.
    metrics_port: int | None = None
    # Log lines for people or for machines.
    log_format: LogFormat = "text"
    # Least severe log lines that are written.
    log_level: LogLevel = "info"

    def __post_init__(self) -> None:
        parse_score_tokens(self.score_tokens)
        ServerTls.of(self.tls_cert, self.tls_key, self.tls_ca)
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
        rerank_prompts.stated(self.rerank_template)
        if self.default_prompt and self.default_prompt_name:
            raise ValueError("default_prompt and default_prompt_name exclude each other: set one of them")
        at_least(0, drain_s_max=self.drain_s_max)

    def _check_engines(self) -> None:
        check_targets(*self.engines)
        if not self.engines:
            raise ValueError("engines must name at least one engine pod")
        _ = self.engines_access

    @property
    def tls(self) -> ServerTls | None:
        return ServerTls.of(self.tls_cert, self.tls_key, self.tls_ca)

    @property
    def engines_access(self) -> Access:
        return Access.of(
            "engines",
            ca=self.engines_tls_ca,
            cert=self.engines_tls_cert,
            tls_key=self.engines_tls_key,
            server_name=self.engines_tls_name,
            key=self.engines_key,
            key_file=self.engines_key_file,
        )
