"""Says where the Triton kernels of this package run. Callers ask before they import a kernel, because Triton is not
installed everywhere."""

import importlib.util
import logging
from functools import cache

import torch

# Triton compiles for Turing and later.
CAPABILITY_MIN = (7, 5)

logger = logging.getLogger(__name__)


@cache
def runs_kernels(device: torch.device) -> bool:
    """False on a CPU, where Triton's interpreter is for tests only."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY_MIN:
        return False
    return triton_works()


@cache
def triton_works() -> bool:
    """Triton builds its interface to the GPU's driver with the C compiler and the Python headers of the machine, into a
    folder that must be writable. A slim image may lack any of them: then the plain versions run."""
    if importlib.util.find_spec("triton") is None:
        logger.warning("no Triton kernels: Triton is not installed")
        return False
    try:
        from triton.runtime import driver

        driver.active.get_current_device()
    except Exception as error:  # noqa: BLE001 - whatever it is, the plain versions do not need Triton
        logger.warning("no Triton kernels: %s: %s", type(error).__name__, error)
        return False
    return True
