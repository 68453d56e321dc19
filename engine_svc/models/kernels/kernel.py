"""What a kernel's module registers, so that tests and `tests.gpu` can compare the kernel with its plain version."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine_svc.models.kernels.available import CAPABILITY_MIN


@dataclass(frozen=True, slots=True)
class Kernel:
    fused: Callable[..., Tensor]  # leaves its arguments as they are
    plain: Callable[..., Tensor]  # the same computation with PyTorch's own operations
    # Random arguments for both: realistic sizes on a GPU, small ones on a CPU.
    example: Callable[[torch.device, torch.dtype], Sequence[Any]]
    capability_min: tuple[int, int] = CAPABILITY_MIN  # of the card
