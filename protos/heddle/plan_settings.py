"""What `heddle plan` can be told: flag, else HEDDLE_PLAN_* variable, else the default here."""

from dataclasses import dataclass
from typing import Literal

from heddle.model_source import PACKAGED_NAME
from heddle.planning import measured
from heddle.planning.balancing import Policy
from heddle.rpc.settings import at_least

GpuName = Literal[
    "T4",
    "V100",
    "A10",
    "A10G",
    "A100-40GB",
    "A100-80GB",
    "L4",
    "L40S",
    "RTX-4090",
    "H100-PCIe",
    "H100-NVL",
    "H100-SXM",
    "H200",
    "B200",
]


@dataclass(frozen=True)
class PlanSettings:
    """Says how many gateway, tokenizer and engine pods a load needs, and which latency to expect of them.

    A queueing model finds the numbers, a simulation checks them. The engine is a GPU's data sheet and a model's shape,
    or the two figures that were measured of one. With --simulate, policies of balancing are compared instead."""

    # Traffic

    # Requests per second, on average; they come independently of each other.
    requests_per_s: float = 1_000.0
    # Mean inputs of a request; they are log-normal, rounded.
    inputs_mean: float = 1.0
    # Standard deviation of the inputs of a request, as a share of their mean; 0 gives every request the mean.
    inputs_spread: float = 0.0
    # Most inputs of a request.
    inputs_most: int = 2048
    # Mean tokens of an input, before those beyond --tokens-most are cut off; they are log-normal.
    tokens_mean: float = 100.0
    # Standard deviation of the tokens of an input, as a share of their mean; 0 gives every input the mean.
    tokens_spread: float = 0.8
    # Median of the log-normal distribution of tokens, instead of mean and spread; 0 takes those.
    tokens_median: float = 0.0
    # Standard deviation of the logarithm of the tokens; goes with --tokens-median.
    tokens_sigma: float = 0.7
    # Most tokens of an input; longer ones are cut.
    tokens_most: int = 256
    # Milliseconds that 99 of 100 requests are to be answered in, from the gateway's socket and back.
    p99_ms: float = 50.0

    # Engine

    # Hub name of the model, or folder of a checkpoint, for its shape.
    model: str = PACKAGED_NAME
    # GPU of an engine pod, by its data sheet.
    gpu: GpuName = "L4"
    # Share of the data sheet's peak that is reached; assumed, not measured.
    efficiency: float = measured.EFFICIENCY
    # Microseconds that each layer adds to a batch, however small; assumed, not measured.
    launch_us_per_layer: float = measured.LAUNCH_US_PER_LAYER
    # Microseconds of every batch, as measured; with --per-token-ns it replaces model and GPU.
    fixed_us: float | None = None
    # Nanoseconds that each token adds to a batch, as measured.
    per_token_ns: float | None = None
    # Tokens of one forward pass, as the engine is set.
    batch_tokens_max: int = 16_384
    # Sequences of one forward pass, as the engine is set.
    batch_items_max: int = 1024
    # Share of their most that engine pods may be planned for; the rest is for peaks, and for pods that are lost.
    engine_load_max: float = 0.8

    # Other services

    # CPU microseconds of the gateway for each request.
    gateway_request_us: float = measured.GATEWAY_REQUEST_US
    # CPU microseconds of the gateway for each input.
    gateway_input_us: float = measured.GATEWAY_INPUT_US
    # CPU nanoseconds of the gateway for each token of text.
    gateway_token_ns: float = measured.GATEWAY_TOKEN_NS
    # CPU microseconds of the tokenizer for each request.
    tokenizer_request_us: float = measured.TOKENIZER_REQUEST_US
    # CPU microseconds of the tokenizer for each input.
    tokenizer_input_us: float = measured.TOKENIZER_INPUT_US
    # CPU nanoseconds of the tokenizer for each token of text.
    tokenizer_token_ns: float = measured.TOKENIZER_TOKEN_NS
    # Share of one core that gateway and tokenizer pods may be planned for.
    cpu_load_max: float = 0.6
    # Microseconds of one hop from service to service, one way; assumed, not measured.
    network_us: float = measured.NETWORK_US

    # Simulation

    # Check the plan by simulation, and add pods where it finds that they are needed.
    check: bool = True
    # Compare policies of balancing instead of planning.
    simulate: bool = False
    # How tokenizer pods choose an engine pod, when a plan is checked.
    policy: Policy = Policy.TWO_CHOICES_TOKENS
    # Engine pods to compare policies with; 0 takes as many as would be planned.
    engine_pods: int = 0
    # Tokenizer pods to compare policies with; each decides alone.
    tokenizer_pods: int = 16
    # Loads to compare policies at, as shares of the most that all pods can do.
    loads: tuple[float, ...] = (0.3, 0.6, 0.8, 0.9)
    # Share of the engine pods that are slower than the others.
    slow_pods_share: float = 0.0
    # How many times longer those take.
    slow_factor: float = 2.0
    # Sequences of one simulation.
    sequences: int = 200_000
    # Of the random numbers.
    seed: int = 0

    # Output

    # Print JSON, for programs.
    json: bool = False

    def __post_init__(self) -> None:
        at_least(1, inputs_mean=self.inputs_mean, inputs_most=self.inputs_most, tokens_most=self.tokens_most)
        at_least(1, tokens_mean=self.tokens_mean, batch_tokens_max=self.batch_tokens_max)
        at_least(1, batch_items_max=self.batch_items_max, tokenizer_pods=self.tokenizer_pods)
        at_least(1, slow_factor=self.slow_factor)
        at_least(1000, sequences=self.sequences)
        at_least(0, inputs_spread=self.inputs_spread, tokens_spread=self.tokens_spread, tokens_sigma=self.tokens_sigma)
        at_least(0, engine_pods=self.engine_pods, tokens_median=self.tokens_median, network_us=self.network_us)
        at_least(0, fixed_us=self.fixed_us, per_token_ns=self.per_token_ns, seed=self.seed)
        at_least(0, launch_us_per_layer=self.launch_us_per_layer)
        at_least(0, gateway_request_us=self.gateway_request_us, gateway_input_us=self.gateway_input_us)
        at_least(0, tokenizer_request_us=self.tokenizer_request_us, tokenizer_input_us=self.tokenizer_input_us)
        at_least(0, gateway_token_ns=self.gateway_token_ns, tokenizer_token_ns=self.tokenizer_token_ns)
        above_zero(requests_per_s=self.requests_per_s, p99_ms=self.p99_ms)
        if not (0 < self.efficiency <= 1 and 0 <= self.slow_pods_share <= 1):
            raise ValueError(
                "efficiency and slow_pods_share are shares: they lie between 0 and 1, and efficiency is not 0"
            )
        for load in (self.engine_load_max, self.cpu_load_max, *self.loads):
            if not 0 < load < 1:
                raise ValueError(f"a load must lie between 0 and 1, not be {load:g}")
        if (self.fixed_us is None) != (self.per_token_ns is None):
            raise ValueError("fixed_us and per_token_ns go together")
        if self.fixed_us == 0 and self.per_token_ns == 0:
            raise ValueError("an engine that takes no time needs no plan: fixed_us and per_token_ns are both 0")


def above_zero(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} must be more than 0, not {value:g}")
