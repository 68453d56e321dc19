"""The settings of `heddle serve`: flag, else HEDDLE_SERVE_* variable, else the default here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heddle.checkpoint.language_models import AUTO, parse_score_tokens
from heddle.checkpoint.model_source import PACKAGED_NAME
from heddle.checkpoint.sentence_modules import PoolingSetting
from heddle.machine import check_device
from heddle.rpc.credentials import ServerTls
from heddle.rpc.settings import at_least
from heddle.rpc.telemetry import LogLevel


@dataclass(frozen=True)
class ServeSettings:
    """Serves one model on this machine: HTTP and gRPC, with all services started, watched and stopped together.

    `heddle serve config.yaml` starts from a Truss config file; flags and variables override it. `heddle config check
    config.yaml` says what it would run.

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
    # Where engines compute: cpu, cuda (the first GPU), cuda:N (one of several), or auto, which spreads them over the
    # GPUs if there are any, and takes the CPU otherwise.
    device: str = "auto"
    # Number format of the computation; auto takes bfloat16 where the machine is fast at it, else float16 on a GPU and
    # float32 on a CPU, which takes float32 for scores and sparse vectors in any case.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    # Weights of the transformer's linears: no_quant keeps them as the checkpoint stores them; fp8 and fp4 quantize them
    # while they are loaded. Only decoders can be quantized, not encoders (BERT and its like).
    quantization: Literal["no_quant", "fp8", "fp4"] = "no_quant"
    # What computes: torch, tensorrt_llm, auto, which is tensorrt_llm where it is installed and serves the model on this
    # GPU and torch otherwise, or simulated, which answers made-up vectors after a modelled time.
    engine: Literal["auto", "torch", "tensorrt_llm", "simulated"] = "torch"
    # Engine processes. Each holds the model, on a GPU of its own as far as there are GPUs; they share the CPU cores.
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
        check_device(self.device)
        at_least(1, engines=self.engines)
        at_least(0, http_port=self.http_port, grpc_port=self.grpc_port)
        ServerTls.of(self.tls_cert, self.tls_key, self.tls_ca)
