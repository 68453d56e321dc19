"""What the engine offers for a GPU beyond its plain path, found by looking: fp8, and kernels of its own. A check of
what is not there says "not built", and a check of what is there needs no change here.

fp8 is there when TorchBackend takes `quantization`. Kernels are there where Triton is.
"""

import importlib.util
import inspect
from collections.abc import Mapping

import torch

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.kernels.kernel import Kernel

NOT_BUILT = "not built"


def has_fp8() -> bool:
    return "quantization" in inspect.signature(TorchBackend).parameters


def kernels(device: str) -> Mapping[str, Kernel]:
    """Those that run on the device. On a CPU they do in Triton's interpreter."""
    if importlib.util.find_spec("triton") is None:
        return {}
    if device == "cpu":
        import tests.engine_svc.models.kernels.interpreter  # noqa: F401
    from engine_svc.models.kernels.table import KERNELS

    if device == "cpu":
        return KERNELS
    capability = torch.cuda.get_device_capability(device)
    return {name: kernel for name, kernel in KERNELS.items() if capability >= kernel.capability_min}
