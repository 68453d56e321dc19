"""The settings of an engine pod. Each comes from a flag, else from a HEDDLE_ENGINE_* variable, else from its
default."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heddle.checkpoint.language_models import AUTO, parse_score_tokens
from heddle.checkpoint.model_source import PACKAGED_NAME
from heddle.checkpoint.sentence_modules import PoolingSetting
from heddle.machine import check_device
from heddle.quantization import NO_QUANT, Quantization
from heddle.rpc.credentials import ServerTls
from heddle.rpc.message_limits import REQUEST_BYTES_MAX, check_message_bytes
from heddle.rpc.settings import at_least
from heddle.telemetry.logs import LogFormat, LogLevel
from heddle.telemetry.trace_settings import check_ratio


@dataclass(frozen=True)
class EngineSettings:
    """Runs one model on one device: token ids in, vectors out, over gRPC (heddle.v1.EngineService)."""

    # Addresses to listen on: host:port or unix:/path, several separated by commas.
    listen: tuple[str, ...] = ("127.0.0.1:50052",)

    # Model

    # Hub name of the model, folder of a checkpoint, or address: s3://bucket/path, gs://bucket/path,
    # az://container/path, or https://host/path to an archive or a folder.
    model: str = PACKAGED_NAME
    # Name that requests use for the model; the value of --model when empty.
    served_model_name: str = ""
    # Commit, branch or tag on the hub; the default branch when empty.
    revision: str = ""
    # How tokens become one vector: auto is what the checkpoint says; splade makes a sparse vector with a masked
    # language model. Must be the same for tokenizer and engine.
    pooling: PoolingSetting = "auto"
    # Tokens whose logits give the score of a reranker that is a causal language model, such as yes,no: ids, or
    # spellings from its vocabulary. auto takes them from the checkpoint's files, or knows them by the model's name.
    # Must be the same for tokenizer and engine.
    score_tokens: str = AUTO
    # Adapter to compute with, one of those in the checkpoint (such as retrieval.query of jina-embeddings-v3); none when
    # empty.
    adapter: str = ""
    # What computes: torch (CPU or CUDA); tensorrt_llm; auto, which is tensorrt_llm if it is installed and serves the
    # model on this GPU, otherwise torch; or simulated, which returns made-up vectors after a modelled time.
    backend: Literal["auto", "torch", "tensorrt_llm", "simulated"] = "torch"
    # Where the pod computes: cpu, cuda (the first GPU), cuda:N (one of several, in the order of CUDA_VISIBLE_DEVICES if
    # that is set), or auto, which is the first GPU if there is one, else the CPU.
    device: str = "auto"
    # Number format of the computation; auto takes bfloat16 where the device is fast at it, otherwise float16 on a GPU
    # and float32 on a CPU. A CPU always takes float32 for scores and sparse vectors.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    # Quantization of the transformer's linears. no_quant keeps the stored weights, including FP8, NVFP4 and int8 of
    # NVIDIA's ModelOpt. The others quantize while loading: that saves memory, and time on GPUs that multiply FP8 or FP4
    # and CPUs that multiply int8. fp8* and fp4* are for decoders only. *_mlp_only does not quantize attention. *_kv
    # also quantizes the key-value cache, which torch does not have. weights_int8 and smooth_quant are for decoders, and
    # for encoders such as BERT on a CPU. smooth_quant needs a checkpoint that heddle build has calibrated.
    quantization: Quantization = NO_QUANT
    # CPU cores that forward passes share; 0 takes all, or those that the container is limited to.
    threads: int = 0
    # Forward passes that may run at once, not counting the one for small queries during bulks. 0 takes one per core, up
    # to 8; on a GPU it takes two, the second of which is prepared while the first runs; tensorrt_llm runs one.
    passes: int = 0

    # Access

    # Certificate (with its intermediates) and key, PEM, for the addresses host:port; plaintext when unset. Both are
    # read again when they change.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    # Certificate authorities, PEM. Callers must have a certificate from one of them (mutual TLS).
    tls_ca: Path | None = None
    # Keys that callers at host:port must send as metadata `authorization: Bearer KEY`; without keys, anyone may call.
    # Set them by variable, not by flag: other users of the machine can see flags. Health checks need no key.
    api_keys: tuple[str, ...] = ()
    # File of more keys, one per line: a name, the key or sha256:HASH (its SHA-256 in hexadecimal digits), and
    # optionally the best priority that the key may ask for. Everything after # is a comment.
    api_keys_file: Path | None = None

    # Batches

    # Tokens of one forward pass; 0 takes 16384 on a GPU, and 512 on a CPU, where more are hardly cheaper per token.
    batch_tokens_max: int = 0
    # Sequences of one forward pass.
    batch_items_max: int = 1024
    # Tokens that may wait for the engine; beyond them new sequences are refused as OVERLOADED.
    queue_tokens_max: int = 4_000_000
    # Seconds that a request may wait in the queue, estimated from the measured speed. A request is refused as
    # OVERLOADED at once if it would wait longer, behind more than 200 turns of others, or would miss its deadline.
    # While requests are refused, the limit falls to a tenth within 6 seconds.
    queue_s_max: float = 5.0
    # Sequences that may wait for the engine. A single submission may not have more.
    queue_items_max: int = 65_536
    # Bytes of the requests and answers of all unary calls (Encode) in progress. Beyond this, calls are refused as
    # OVERLOADED.
    calls_bytes_max: int = 256 << 20
    # Bytes of one message from a client, from 1 MiB to 256 MiB. A larger message ends its stream or call. Memory is
    # held for unfinished messages too.
    message_bytes_max: int = REQUEST_BYTES_MAX

    # Operation

    # Seconds that a stopping pod takes to finish what it accepted.
    drain_s_max: float = 30.0
    # Seconds that a stopping pod still accepts requests and streams while its health check already fails, so that
    # proxies have time to notice.
    drain_delay_s: float = 0.0
    # Port of the Prometheus metrics, at /metrics. If it is in use, the pod takes the next free port above it. 0 means
    # any free port; none means no metrics.
    metrics_port: int | None = 9152
    # Address of the metrics port. When empty, the address of the first host:port of --listen, or else 127.0.0.1.
    metrics_host: str = ""
    # Also serve te_queue_size, te_batch_next_size and te_batch_next_tokens, for dashboards of Text Embeddings
    # Inference.
    tei_metrics: bool = False
    # OpenTelemetry collector that receives traces (OTLP over gRPC), such as http://localhost:4317. When empty, that of
    # OTEL_EXPORTER_OTLP_ENDPOINT; without either, there are no traces. The exporter's other OTEL_ variables apply too.
    trace_collector: str = ""
    # Share of requests that are traced, from 0 to 1. If a request has a traceparent, its sampled flag decides instead.
    trace_ratio: float = 0.01
    # Log lines for people or for machines.
    log_format: LogFormat = "text"
    # Least severe log lines that are written.
    log_level: LogLevel = "info"

    # Simulated backend

    # Microseconds that every batch takes.
    simulated_fixed_us: int = 2_000
    # Nanoseconds that each token of a batch adds.
    simulated_per_token_ns: int = 1_000

    def __post_init__(self) -> None:
        parse_score_tokens(self.score_tokens)
        ServerTls.from_settings(self.tls_cert, self.tls_key, self.tls_ca)
        check_device(self.device)
        at_least(0, threads=self.threads, passes=self.passes, batch_tokens_max=self.batch_tokens_max)
        at_least(0, metrics_port=self.metrics_port)
        at_least(0, drain_s_max=self.drain_s_max, drain_delay_s=self.drain_delay_s)
        check_ratio(self.trace_ratio)
        at_least(1, batch_items_max=self.batch_items_max, queue_items_max=self.queue_items_max)
        at_least(0.001, queue_s_max=self.queue_s_max)
        at_least(1, queue_tokens_max=self.queue_tokens_max, calls_bytes_max=self.calls_bytes_max)
        check_message_bytes(self.message_bytes_max)
        at_least(0, simulated_fixed_us=self.simulated_fixed_us, simulated_per_token_ns=self.simulated_per_token_ns)

    @property
    def tls(self) -> ServerTls | None:
        return ServerTls.from_settings(self.tls_cert, self.tls_key, self.tls_ca)
