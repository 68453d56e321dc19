"""`heddle plan`: estimates how many pods of each service a load needs. Called by `main`; formulas are in `capacity`."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import PACKAGED_NAME, locate, name_of
from heddle.cli.capacity import (
    Amount,
    CpuCost,
    EnginePod,
    ImpossibleError,
    Latency,
    Tier,
    Traffic,
    plan_cpu_tier,
    plan_engine_tier,
)
from heddle.cli.data_sheets import GPUS, ModelShape, estimate_engine_pod
from heddle.rpc.settings import EXIT_MISCONFIGURED, ConfigurationError, at_least, load, suggestion


@dataclass(frozen=True)
class PlanSettings:
    """Estimates how many gateway, tokenizer and engine pods a load needs, and their latency, memory and cost.

    Examples:

        heddle plan --requests-per-s 20000 --gpu H100-SXM --p99-ms 30
        heddle plan --model ./my-model --gpu L4 --inputs-mean 16 --tokens-mean 200
        heddle plan --tokens-per-s 450000 --engine-price 0.8 --cpu-price 0.05 --json
        heddle plan --fixed-us 2000 --per-token-ns 1000

    Latencies come from queueing formulas, which assume that work goes to random engine pods. Heddle balances it better,
    so its p99 is lower. A request's latency ends with the answer to its last input."""

    # Traffic

    # Requests per second, on average. They arrive independently of each other.
    requests_per_s: float = 1_000.0
    # Inputs per request, on average.
    inputs_mean: float = 1.0
    # Standard deviation of the inputs per request, divided by their mean.
    inputs_spread: float = 0.0
    # Tokens per input, on average, after truncation.
    tokens_mean: float = 100.0
    # Standard deviation of the tokens per input, divided by their mean.
    tokens_spread: float = 0.8
    # Milliseconds within which 99 of 100 requests must be answered.
    p99_ms: float = 50.0

    # Engine

    # Model folder, or name on the Hugging Face Hub. The amount of computation follows from its config.json.
    model: str = PACKAGED_NAME
    # GPU of an engine pod: T4, V100, A10, A10G, A100-40GB, A100-80GB, L4, L40S, RTX-4090, H100-PCIe, H100-NVL,
    # H100-SXM, H200 or B200.
    gpu: str = "L4"
    # Share of the GPU's peak FLOPS that the engine reaches. The default is an assumption.
    efficiency: float = 0.4
    # Microseconds that each layer adds to every batch. The default assumes ten kernels of 5 us each.
    launch_us_per_layer: float = 50.0
    # Measured tokens per second of one pod in full batches. Replaces the estimate from the GPU's peak.
    tokens_per_s: float | None = None
    # Measured microseconds that every batch takes, whatever its size. With --per-token-ns, replaces model and GPU.
    fixed_us: float | None = None
    # Measured nanoseconds that each token adds to a batch.
    per_token_ns: float | None = None
    # Maximum tokens in a batch, as configured in the engine.
    batch_tokens_max: int = 16_384
    # Maximum inputs in a batch, as configured in the engine.
    batch_items_max: int = 1024
    # Maximum load of an engine pod, as a share of its throughput. The rest is reserved for peaks and lost pods.
    engine_load_max: float = 0.8

    # Costs of gateway and tokenizer pods, of one core each, as measured in tests/bench/RESULTS.md

    # CPU microseconds of the gateway per request.
    gateway_request_us: float = 106.0
    # CPU microseconds of the gateway per input.
    gateway_input_us: float = 22.0
    # CPU nanoseconds of the gateway per token.
    gateway_token_ns: float = 67.0
    # CPU microseconds of the tokenizer per request.
    tokenizer_request_us: float = 67.0
    # CPU microseconds of the tokenizer per input.
    tokenizer_input_us: float = 47.0
    # CPU nanoseconds of the tokenizer per token.
    tokenizer_token_ns: float = 1580.0
    # Maximum load of a gateway or tokenizer pod.
    cpu_load_max: float = 0.6
    # Network latency between two services, one way, in microseconds. The default is an assumption.
    network_us: float = 150.0

    # Output

    # Price of an engine pod per hour, in any currency.
    engine_price: float = 0.0
    # Price of a gateway or tokenizer pod per hour.
    cpu_price: float = 0.0
    # Print JSON.
    json: bool = False

    def __post_init__(self) -> None:
        at_least(1, inputs_mean=self.inputs_mean, tokens_mean=self.tokens_mean)
        at_least(1, batch_tokens_max=self.batch_tokens_max, batch_items_max=self.batch_items_max)
        positive = {name: getattr(self, name) for name in ("requests_per_s", "p99_ms", "tokens_per_s", "efficiency")}
        for name, value in positive.items():
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be more than 0, not {value:g}")
        others = {name: value for name, value in vars(self).items() if not isinstance(value, str)}
        at_least(0, **others)
        if self.efficiency > 1:
            raise ValueError(f"efficiency must be at most 1, not {self.efficiency:g}")
        for name, load_max in (("engine_load_max", self.engine_load_max), ("cpu_load_max", self.cpu_load_max)):
            if not 0 < load_max < 1:
                raise ValueError(f"{name} must be between 0 and 1, not {load_max:g}")
        if self.gpu not in GPUS:
            raise ValueError(f"gpu {self.gpu!r} is not one of {', '.join(GPUS)}{suggestion(self.gpu, GPUS)}")
        if (self.fixed_us is None) != (self.per_token_ns is None):
            raise ValueError("fixed_us and per_token_ns must be set together")
        if self.fixed_us is not None and (self.tokens_per_s is not None or self.fixed_us == self.per_token_ns == 0):
            raise ValueError("fixed_us and per_token_ns cannot be combined with tokens_per_s, nor both be 0")


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Returns the exit code."""
    settings = load(PlanSettings, argv, environ, prog="heddle plan", env_prefix="HEDDLE_PLAN_")
    try:
        figures = estimate(settings)
    except (ConfigurationError, ImpossibleError, ValueError) as error:
        print(f"heddle plan: {error}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    print(json.dumps(figures, indent=2) if settings.json else format_table(figures))
    return 0


def estimate(settings: PlanSettings) -> dict[str, Any]:
    """Returns the figures that `--json` prints."""
    tokens = Amount.with_spread(settings.tokens_mean, settings.tokens_spread)
    inputs = Amount.with_spread(settings.inputs_mean, settings.inputs_spread)
    traffic = Traffic(settings.requests_per_s, inputs, tokens)
    engine_pod, memory_bytes = choose_engine(settings, tokens)
    gateway_cost = cpu_cost(settings.gateway_request_us, settings.gateway_input_us, settings.gateway_token_ns)
    tokenizer_cost = cpu_cost(settings.tokenizer_request_us, settings.tokenizer_input_us, settings.tokenizer_token_ns)
    gateway, tokenizer = (
        plan_cpu_tier(cost, traffic, settings.cpu_load_max) for cost in (gateway_cost, tokenizer_cost)
    )
    network_s = Amount(4 * settings.network_us * 1e-6)
    outside_s = gateway.latency.moments + tokenizer.latency.moments + network_s
    p99_s, load_max = settings.p99_ms / 1000, settings.engine_load_max
    engine = plan_engine_tier(engine_pod, traffic, outside_s, p99_s=p99_s, load_max=load_max)
    cost_per_h = engine.pods * settings.engine_price + (gateway.pods + tokenizer.pods) * settings.cpu_price
    return {
        "requests_per_s": traffic.requests_per_s,
        "tokens_per_s": traffic.tokens_per_s,
        "p99_ms_wanted": settings.p99_ms,
        **latency_figures(engine.latency + outside_s),
        "gateway": tier_figures(gateway),
        "tokenizer": tier_figures(tokenizer),
        "engine": {
            **tier_figures(engine),
            "busy": engine.busy,
            "batch_tokens": engine.batch_tokens,
            "fixed_us": engine_pod.fixed_s * 1e6,
            "per_token_ns": engine_pod.per_token_s * 1e9,
            "tokens_per_s_max": engine_pod.tokens_per_s_max(tokens),
            "memory_gb": memory_bytes and memory_bytes / 1e9,
        },
        "cost_per_hour": cost_per_h,
        "cost_per_million_tokens": cost_per_h / (traffic.tokens_per_s * 3600 / 1e6),
    }


def cpu_cost(request_us: float, input_us: float, token_ns: float) -> CpuCost:
    return CpuCost(request_us * 1e-6, input_us * 1e-6, token_ns * 1e-9)


def choose_engine(settings: PlanSettings, tokens: Amount) -> tuple[EnginePod, float | None]:
    """Returns an engine pod and the memory that it needs in bytes, None if the model is unknown."""
    limits = settings.batch_tokens_max, settings.batch_items_max
    if settings.fixed_us is not None and settings.per_token_ns is not None:
        return EnginePod(settings.fixed_us * 1e-6, settings.per_token_ns * 1e-9, *limits), None
    checkpoint = Checkpoint.read(locate(settings.model, with_weights=False), name_of(settings.model))
    if settings.tokens_mean > checkpoint.sequence_tokens_max:
        limit = checkpoint.sequence_tokens_max
        raise ConfigurationError(
            f"tokens_mean is {settings.tokens_mean:g}, but {name_of(settings.model)} takes at most {limit}"
        )
    gpu, shape = GPUS[settings.gpu], ModelShape.read(checkpoint.config)
    memory_bytes = shape.memory_bytes(settings.batch_tokens_max)
    if memory_bytes > gpu.gigabytes * 1e9:
        needed = f"{name_of(settings.model)} needs {memory_bytes / 1e9:.1f} GB for weights and a full batch"
        raise ImpossibleError(f"{needed}; {settings.gpu} has {gpu.gigabytes:g} GB")
    launch_s = settings.launch_us_per_layer * 1e-6
    engine = estimate_engine_pod(
        gpu, shape, tokens, efficiency=settings.efficiency, launch_s_per_layer=launch_s, limits=limits
    )
    if settings.tokens_per_s is not None:
        per_token_s = 1 / settings.tokens_per_s - engine.fixed_s / engine.full_batch_tokens(tokens)
        engine = replace(engine, per_token_s=max(0.0, per_token_s))
    return engine, memory_bytes


def tier_figures(tier: Tier) -> dict[str, Any]:
    return {"pods": tier.pods, "load": tier.load, **latency_figures(tier.latency)}


def latency_figures(latency: Latency) -> dict[str, float]:
    return {"p50_ms": latency.quantile(0.5) * 1000, "p99_ms": latency.quantile(0.99) * 1000}


def format_table(figures: Mapping[str, Any]) -> str:
    engine = figures["engine"]
    asked = f"{figures['requests_per_s']:,.0f} requests/s, {figures['tokens_per_s']:,.0f} tokens/s"
    batch = f"{engine['fixed_us']:,.0f} us per batch and {engine['per_token_ns']:,.0f} ns per token"
    lines = [
        f"{asked}, 99% within {figures['p99_ms_wanted']:g} ms",
        f"Engine pod: {batch}, at most {engine['tokens_per_s_max']:,.0f} tokens/s",
        "",
        f"{'':<24}{'pods':>8}{'load':>8}{'p50 ms':>10}{'p99 ms':>10}",
    ]
    for name in ("gateway", "tokenizer", "engine"):
        tier = figures[name]
        lines.append(f"{name:<24}{tier['pods']:>8,}{tier['load']:>8.0%}{tier['p50_ms']:>10.1f}{tier['p99_ms']:>10.1f}")
    lines += [
        f"{'total, with network':<40}{figures['p50_ms']:>10.1f}{figures['p99_ms']:>10.1f}",
        "",
        f"Engine pods compute {engine['busy']:.0%} of the time, in batches of {engine['batch_tokens']:,.0f} tokens.",
        "Load is the share of a pod's maximum throughput, which it reaches in full batches.",
    ]
    if engine["memory_gb"]:
        lines.append(f"An engine pod needs {engine['memory_gb']:.1f} GB for weights and a full batch.")
    if figures["cost_per_hour"]:
        per_million = f"{figures['cost_per_million_tokens']:.4f} per million tokens"
        lines.append(f"Cost: {figures['cost_per_hour']:.2f} per hour, {per_million}.")
    return "\n".join(lines)
