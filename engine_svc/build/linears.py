"""Finds the linears of a checkpoint that can be quantized, and reads their weights. `quantizer` calls this.

Linears that the engine fuses because they have the same inputs (q, k and v; gate and up) form a group, and share the
scales of their inputs. Calibration observes the same groups.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine_svc.models.architectures.registry import find_architecture
from engine_svc.models.lora import LoraConfig
from engine_svc.models.model import Model
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.quantization import is_attention, read_stored_quantization
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError

CPU, META = torch.device("cpu"), torch.device("meta")

STORED_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True, slots=True)
class LinearGroup:
    names: Sequence[str]  # of the bare model, without ".weight"

    @property
    def key(self) -> str:
        return self.names[0]

    @property
    def is_attention(self) -> bool:
        return is_attention(self.key)


class Linears:
    """The groups of a checkpoint in loading order, and their weights."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Reads no weights. Raises CheckpointError if the engine cannot run the checkpoint, or if it is already
        quantized."""
        stored = read_stored_quantization(checkpoint)
        if stored is not None:
            raise CheckpointError(f"{stored.path}: the weights are already {stored.algorithm}; quantize the original")
        config = ModelConfig.of(checkpoint)
        if LoraConfig.of(config) is not None:
            raise CheckpointError(f"{checkpoint.folder}: a model with LoRA adapters cannot be quantized in a build")
        self.prefix = find_architecture(config).prefix
        self._weights = Weights(checkpoint.folder, dtype=torch.float32, device=CPU, prefix=self.prefix)
        self.groups = find_groups(checkpoint)
        self._group_of = {name: group for group in self.groups for name in group.names}

    def find(self, tensor: str) -> tuple[str, LinearGroup] | None:
        """Returns the linear whose weight is `tensor`, without the prefix of a model with a head, and its group.
        Returns None for other tensors."""
        name = tensor.removesuffix(".weight")
        if name == tensor:
            return None
        name = name if name in self._group_of else name.removeprefix(self.prefix)
        group = self._group_of.get(name)
        return None if group is None else (name, group)

    def read_weights(self, group: LinearGroup) -> Iterator[Tensor]:
        """Yields blocks of rows [some, inputs] of all the group's weights, in float32."""
        for name in group.names:
            stored = f"{name}.weight"
            for _, block in self._weights.read_blocks(stored, self._weights.shape(stored)):
                yield block.float()

    def count_inputs(self, group: LinearGroup) -> int:
        return self._weights.shape(f"{group.key}.weight")[1]

    def stored_type(self, group: LinearGroup) -> torch.dtype:
        """Returns the stored type of the group's weights if it has 16 bits, else float32."""
        return STORED_TYPES.get(self._weights.data_type(f"{group.key}.weight"), torch.float32)


def find_groups(checkpoint: Checkpoint) -> list[LinearGroup]:
    groups: list[LinearGroup] = []

    def observe(names: Sequence[str], linear: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
        groups.append(LinearGroup(tuple(names)))
        return linear

    Model.load(checkpoint, dtype=torch.bfloat16, device=META, observe=observe)
    return groups
