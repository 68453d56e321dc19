"""All kernels by name. Importing it needs Triton. Tests and `tests.gpu` compare each with its plain version."""

from collections.abc import Mapping

from engine_svc.models.kernels import gated, norms, quantize, rotary
from engine_svc.models.kernels.attention_examples import ATTENTION_KERNELS
from engine_svc.models.kernels.kernel import Kernel

KERNELS: Mapping[str, Kernel] = {
    **norms.KERNELS,
    **rotary.KERNELS,
    **gated.KERNELS,
    **quantize.KERNELS,
    **ATTENTION_KERNELS,
}
