"""Settings of `heddle serve`. A flag comes first, then a HEDDLE_SERVE_* variable, then the default here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heddle.checkpoint.language_models import AUTO, parse_score_tokens
from heddle.checkpoint.model_source import PACKAGED_NAME
from heddle.checkpoint.sentence_modules import PoolingSetting
from heddle.machine import check_device
from heddle.quantization import NO_QUANT, Quantization
from heddle.rpc.credentials import ServerTls
from heddle.rpc.settings import at_least
from heddle.telemetry.logs import LogFormat, LogLevel
from heddle.telemetry.trace_settings import check_ratio, find_collector

PREFIX_OF_SERVICE = {
    "engine_svc": "HEDDLE_ENGINE_",
    "tokenizer_svc": "HEDDLE_TOKENIZER_",
    "http_gateway": "HEDDLE_GATEWAY_",
}

# Variables of the services for the model's name in answers.
NAME_VARIABLES = ("HEDDLE_ENGINE_SERVED_MODEL_NAME", "HEDDLE_TOKENIZER_SERVED_MODEL_NAME")


@dataclass(frozen=True)
class ServeSettings:
    """Serves one model on this machine over HTTP and gRPC. Starts gateway, tokenizer and engines, restarts those that
    die, and stops all of them together.

    `heddle serve config.yaml` starts from a Truss config file; flags and variables override it. `heddle config check
    config.yaml` says what it would run.

    Each service also has variables of its own (HEDDLE_ENGINE_*, HEDDLE_TOKENIZER_*, HEDDLE_GATEWAY_*) for everything
    that has no flag here. They are listed by `engine-svc --help`, `tokenizer-svc --help` and `http-gateway --help`."""

    # Model

    # Model folder, name on the Hugging Face Hub, or address: s3://bucket/path, gs://bucket/path, az://container/path,
    # https://host/model.tar.gz (tar or zip), or https://host/folder/.
    model: str = PACKAGED_NAME
    # Branch, tag or commit of a hub model; empty means main. All services load the same commit.
    revision: str = ""
    # How the vectors of tokens become one vector. auto uses the pooling of the checkpoint. splade makes sparse vectors
    # with a masked language model.
    pooling: PoolingSetting = "auto"
    # For rerankers that are causal language models: the tokens whose logits make the score, such as yes,no. Give ids or
    # spellings. auto uses those of the checkpoint, or those known for the name of the model.
    score_tokens: str = AUTO
    # Device of the engines: cpu, cuda (the first GPU), cuda:N (one of several), or auto, which spreads the engines over
    # the GPUs and uses the CPU if there are none.
    device: str = "auto"
    # Data type of the computation. auto uses bfloat16 where the hardware is fast at it, else float16 on a GPU and
    # float32 on a CPU. On a CPU, it always uses float32 for scores and sparse vectors.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    # Quantization of the weights of linear layers. no_quant keeps the stored weights. fp8* and fp4* are for decoders
    # only, not for encoders such as BERT. *_mlp_only does not quantize attention. *_kv also quantizes the key-value
    # cache, which torch does not have. weights_int8 and smooth_quant, which is calibrated on sample texts, are for
    # decoders, and for encoders on a CPU.
    quantization: Quantization = NO_QUANT
    # Address of a store of builds, such as s3://bucket/path or https://host/path, or a folder. If it holds a build of
    # the model with these settings, Heddle serves that, and needs neither the hub nor the checkpoint. Otherwise it
    # builds the model into its cache first.
    store: str = ""
    # Publish the build to the store if it has none.
    publish: bool = False
    # Backend of the engines: torch, tensorrt_llm, auto (tensorrt_llm if it is installed and supports the model on this
    # GPU, else torch), or simulated, which returns made-up vectors after a modelled time.
    engine: Literal["auto", "torch", "tensorrt_llm", "simulated"] = "torch"
    # Number of engine processes. Each loads the model, on a GPU of its own if there are enough. They share the cores.
    engines: int = 1

    # Addresses

    # Address to listen on; 0.0.0.0 accepts connections from other machines.
    host: str = "127.0.0.1"
    # Port of the HTTP API; 0 picks a free one.
    http_port: int = 8080
    # Port of the gRPC API; 0 picks a free one.
    grpc_port: int = 50051

    # PEM files with the certificate chain and the key of both APIs. Plaintext if unset.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    # PEM file with certificate authorities. Clients of both APIs must then have a certificate of one of them (mutual
    # TLS).
    tls_ca: Path | None = None

    # Operation

    # Minimum level of the log lines that services write.
    log_level: LogLevel = "warning"
    # text, or json: one object per line, from heddle serve itself too. A service's own variable comes first.
    log_format: LogFormat = "text"
    # Collector of traces (OTLP over gRPC), such as http://localhost:4317. When empty, OTEL_EXPORTER_OTLP_ENDPOINT names
    # it; without both there are no traces.
    trace_collector: str = ""
    # Share of requests that are traced, from 0 to 1. If a request has a traceparent, its sampled flag decides instead.
    trace_ratio: float = 0.01

    def __post_init__(self) -> None:
        parse_score_tokens(self.score_tokens)
        check_device(self.device)
        at_least(1, engines=self.engines)
        if self.publish and not self.store:
            raise ValueError("--publish needs --store")
        check_ratio(self.trace_ratio)
        find_collector(self.trace_collector, {})
        at_least(0, http_port=self.http_port, grpc_port=self.grpc_port)
        ServerTls.from_settings(self.tls_cert, self.tls_key, self.tls_ca)


def add_model_name(environ: Mapping[str, str], name: str) -> dict[str, str]:
    """Returns `environ` with `name` as the model's name in answers, unless the operator has set another."""
    return {**environ, **{variable: name for variable in NAME_VARIABLES if not environ.get(variable)}}
