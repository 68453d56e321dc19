"""Which models and number formats an NVIDIA GPU serves. `__main__` checks the GPU at start; the TensorRT-LLM backend
uses the same numbers.

The rules follow BEI's table of GPUs (https://docs.baseten.co/engines/bei/overview, "Hardware requirements"). BEI serves
models with causal attention, BEI-Bert those with bidirectional attention. We take the compute capability of the cards,
so that the rules hold for cards that are not in the table, too:

| GPU        | compute capability | BEI  | BEI-Bert | 16 bit   | quantized products |
|------------|--------------------|------|----------|----------|--------------------|
| T4         | 7.5                | No   | Full     | float16  |                    |
| A100, A10G | 8.0, 8.6           | Full | Full     | bfloat16 |                    |
| L4         | 8.9                | Full | Full     | bfloat16 | FP8                |
| H100, H200 | 9.0                | Full | Full     | bfloat16 | FP8                |
| B200       | 10.0               | Full | Full     | bfloat16 | FP8, FP4           |
"""

import logging
from collections.abc import Mapping

from engine_svc.device import Capability, Device, dotted
from engine_svc.models.quantization import NO_QUANT, Format
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.causality import is_causal
from heddle.rpc.settings import ConfigurationError

log = logging.getLogger(__name__)

# The lowest compute capability with hardware support. torch.cuda.is_bf16_supported() is true for older cards as well,
# which emulate bfloat16.
CAUSAL_MODELS: Capability = (8, 0)
BFLOAT16: Capability = (8, 0)
FLOAT16: Capability = (7, 0)
FP8: Capability = (8, 9)
FP4: Capability = (10, 0)

# By the values of the setting `quantization`.
QUANTIZED_PRODUCTS: Mapping[str, Capability] = {Format.FP8: FP8, Format.FP4: FP4}

# Model types whose hidden states exceed 65,504, the largest number in float16, as EmbeddingGemma's model card says.
FLOAT16_OVERFLOWS = frozenset({"gemma", "gemma2", "gemma3_text"})


def check_gpu(device: Device, checkpoint: Checkpoint, *, dtype: str, quantization: str = NO_QUANT) -> None:
    """Raises ConfigurationError if the GPU cannot serve the model, and logs a warning if it has no hardware for the
    number format. `dtype` and `quantization` are those of the settings."""
    if device.kind != "cuda":
        return
    check_age(device)
    if device.capability < CAUSAL_MODELS and is_decoder(checkpoint) and is_causal(checkpoint.config):
        raise ConfigurationError(
            f"{device} serves only models with bidirectional attention, such as BERT; "
            f"{checkpoint.architecture} needs compute capability {dotted(CAUSAL_MODELS)} (A100, A10G, L4, H100)"
        )
    if dtype == "bfloat16" and device.capability < BFLOAT16:
        log.warning("%s emulates bfloat16, which is slow; --dtype float16 is faster", device)
    if device.capability < FLOAT16:
        log.warning("%s is slow: it has no tensor cores", device)
    needed = QUANTIZED_PRODUCTS.get(quantization, (0, 0))
    if device.capability < needed:
        log.warning(
            "%s does not multiply %s, which needs compute capability %s: --quantization %s saves memory, not time",
            *(device, quantization.upper(), dotted(needed), quantization),
        )


def check_age(device: Device) -> None:
    """PyTorch is built for some generations of GPUs, and fails at the first kernel on an older one."""
    import torch

    names = [name.removeprefix("sm_") for name in torch.cuda.get_arch_list()]
    oldest = divmod(min((int(name) for name in names if name.isdecimal()), default=0), 10)
    if device.capability < oldest:
        raise ConfigurationError(f"{device} is older than PyTorch {torch.__version__} supports ({dotted(oldest)})")


def is_decoder(checkpoint: Checkpoint) -> bool:
    from engine_svc.models.architectures.decoder import FAMILIES

    return checkpoint.config.get("model_type") in FAMILIES
