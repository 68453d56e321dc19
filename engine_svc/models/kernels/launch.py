"""Where the Triton kernels run, and the tile size of row-wise kernels. Callers check `runs_kernels` before they import
a kernel. This file imports no Triton, because Triton is not installed everywhere."""

import importlib.util
import logging
from dataclasses import dataclass
from functools import cache

import torch

# Triton compiles for Turing and later.
CAPABILITY_MIN = (7, 5)

# Narrow rows share a program until it has this many numbers. Fewer do not keep its threads busy.
NUMBERS_MIN = 2048
NUMBERS_PER_WARP = 512  # 16 for each thread
WARPS_MAX = 32  # of a program, on any GPU

logger = logging.getLogger(__name__)


@cache
def runs_kernels(device: torch.device) -> bool:
    """False on a CPU: Triton's interpreter is for tests only."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY_MIN:
        return False
    return triton_works()


@cache
def triton_works() -> bool:
    """Triton builds its interface to the GPU driver with the C compiler and the Python headers of the machine, in a
    folder that must be writable. A slim image may lack any of them; then the PyTorch versions run."""
    if importlib.util.find_spec("triton") is None:
        logger.warning("no Triton kernels: Triton is not installed")
        return False
    try:
        from triton.runtime import driver

        driver.active.get_current_device()
    except Exception as error:  # noqa: BLE001 - whatever the error is, PyTorch's operations work without Triton
        logger.warning("no Triton kernels: %s: %s", type(error).__name__, error)
        return False
    return True


@dataclass(frozen=True, slots=True)
class Tile:
    """The rows of one program. The tile depends only on the width of the rows, so a row is computed in the same way in
    any batch, and a kernel compiles once for each width."""

    rows: int
    columns: int  # a power of two, at least the width
    warps: int

    def num_programs(self, rows: int) -> int:
        return -(-rows // self.rows)


@cache
def choose_tile(width: int) -> Tile:
    columns = 1 << (width - 1).bit_length()
    rows = max(1, NUMBERS_MIN // columns)
    return Tile(rows, columns, min(WARPS_MAX, rows * columns // NUMBERS_PER_WARP))
