"""How long an engine pod takes for a batch, and what the most is that it can do: measured figures, or made of a model's
shape and a GPU's data sheet. Used by heddle.plan and by all of heddle.planning.

A batch of T tokens takes fixed + per_token * T, as engine_svc.backends.simulated has it. Inoue (2021, see
heddle.planning.queueing) finds that such a line describes the batch times of GPUs well.
"""

from dataclasses import dataclass

from heddle.planning.traffic import WholeNumbers


@dataclass(frozen=True, slots=True)
class EngineModel:
    fixed_s: float  # of every batch
    per_token_s: float
    batch_tokens_max: int
    batch_items_max: int

    def batch_s(self, tokens: float) -> float:
        return self.fixed_s + self.per_token_s * tokens

    def full_batch_tokens(self, tokens: WholeNumbers) -> float:
        """Of a batch that is cut from an endless queue: as many average sequences as fit. Where lengths differ, shorter
        sequences fill what a longer one left, so that next to nothing is lost; where all are alike, the rest is."""
        fitting = self.batch_tokens_max / tokens.average
        if tokens.variance < 1e-9:
            fitting = max(1, int(fitting + 1e-9))
        return min(max(1.0, fitting), self.batch_items_max) * tokens.average

    def tokens_per_s_max(self, tokens: WholeNumbers) -> float:
        full = self.full_batch_tokens(tokens)
        return full / self.batch_s(full)


@dataclass(frozen=True, slots=True)
class Gpu:
    """Dense bfloat16 peak (float16 where there is no bfloat16) and memory bandwidth of the vendor's data sheet."""

    tera_flops: float
    terabytes_per_s: float


# NVIDIA's data sheets of each product, read without sparsity.
GPUS = {
    "T4": Gpu(65, 0.32),
    "V100": Gpu(125, 0.9),
    "A10": Gpu(125, 0.6),
    "A10G": Gpu(70, 0.6),
    "A100-40GB": Gpu(312, 1.555),
    "A100-80GB": Gpu(312, 2.039),
    "L4": Gpu(121, 0.3),
    "L40S": Gpu(362, 0.864),
    "RTX-4090": Gpu(165, 1.008),
    "H100-PCIe": Gpu(756, 2.0),
    "H100-NVL": Gpu(835, 3.9),
    "H100-SXM": Gpu(989, 3.35),
    "H200": Gpu(989, 4.8),
    "B200": Gpu(2250, 8.0),
}

BYTES_PER_WEIGHT = 2  # bfloat16


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What decides how much a transformer computes."""

    layers: int
    hidden: int
    attention: int  # heads times their size
    key_value: int  # heads of keys times their size
    intermediate: int
    gated: bool  # the feed-forward part has three matrices instead of two

    @property
    def layer_weights(self) -> int:
        """Of all layers, and all that a token is multiplied with: embeddings are looked up."""
        attention = self.hidden * (2 * self.attention + 2 * self.key_value)
        return self.layers * (attention + (3 if self.gated else 2) * self.hidden * self.intermediate)

    def flops_per_token(self, attended: float) -> float:
        """A multiplication and an addition for each weight, and for each of the `attended` tokens of its sequence one
        product with its key and one with its value."""
        return 2 * self.layer_weights + 4 * self.layers * self.attention * attended


def engine_on(
    gpu: Gpu,
    shape: ModelShape,
    tokens: WholeNumbers,
    *,
    efficiency: float,
    launch_us_per_layer: float,
    batch_tokens_max: int,
    batch_items_max: int,
) -> EngineModel:
    """Per token, `efficiency` of the peak. Per batch, reading all weights once and starting the layers' kernels; both
    are added to the computation, which partly hides them: on the safe side.

    A token of a long sequence attends to more: the average is taken over tokens, not over sequences.
    """
    attended = tokens.average_square / tokens.average
    reading_s = BYTES_PER_WEIGHT * shape.layer_weights / (gpu.terabytes_per_s * 1e12)
    return EngineModel(
        fixed_s=reading_s + launch_us_per_layer * 1e-6 * shape.layers,
        per_token_s=shape.flops_per_token(attended) / (efficiency * gpu.tera_flops * 1e12),
        batch_tokens_max=batch_tokens_max,
        batch_items_max=batch_items_max,
    )
