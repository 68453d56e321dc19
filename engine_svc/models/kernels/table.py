"""All kernels by name, for tests and `tests.gpu`. Importing it needs Triton."""

from collections.abc import Mapping

from engine_svc.models.kernels import gated, norms, quantize, rotary, widen
from engine_svc.models.kernels.attention_examples import ATTENTION_KERNELS
from engine_svc.models.kernels.kernel import Kernel

KERNELS: Mapping[str, Kernel] = {
    **norms.KERNELS,
    **rotary.KERNELS,
    **gated.KERNELS,
    **quantize.KERNELS,
    **widen.KERNELS,
    **ATTENTION_KERNELS,
}
