"""The LoRA adapters (arXiv 2106.09685) of a checkpoint: low-rank changes of its weights, one set per task, as Jina v3
has them.

The adapter that the pod's settings name is added to the weights block by block while they are read, so that it costs no
time in a forward pass and little memory. Without one, the weights are those that all tasks share. Models whose
sequences may name a task also keep all adapters in memory (`engine_svc.models.low_rank`).

`engine_svc.models.model` reads the weights of such a checkpoint through this.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine_svc.models.low_rank import Changes, LowRank
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.weights import Weights
from heddle.checkpoint.json_files import CheckpointError


@dataclass(frozen=True, slots=True)
class Adapters:
    names: Sequence[str]  # in the order in which they are stored
    chosen: int | None  # None = no adapter
    rank: int
    scale: float

    @classmethod
    def of(cls, config: ModelConfig) -> "Adapters | None":
        """None where the checkpoint has none. Raises CheckpointError for a name that is not among its own."""
        names = config.get("lora_adaptations") or []  # Checkpoint.read has checked that it is a list of names
        if config.adapter and config.adapter not in names:
            own = f"are: {', '.join(names)}" if names else "are none"
            config.refuse(f"there is no adapter {config.adapter} (there {own})")
        if not names:
            return None
        rank = config.positive("lora_rank", default=4)
        chosen = names.index(config.adapter) if config.adapter else None
        return cls(names, chosen, rank, config.number("lora_alpha", 1.0) / rank)


class AdaptedWeights(Weights):
    """Weights some of which are stored as torch's parametrizations: the original, and the changes for every task."""

    def __init__(
        self,
        folder: Path,
        adapters: Adapters,
        *,
        dtype: torch.dtype,
        device: torch.device,
        prefix: str = "",
        keeps_all: bool = False,
    ) -> None:
        """`keeps_all`: sequences may name any of the adapters, so all of them stay in memory."""
        super().__init__(folder, dtype=dtype, device=device, prefix=prefix)
        self._adapters = adapters
        self._keeps_all = keeps_all
        if (keeps_all or adapters.chosen is not None) and not any(".lora_A" in name for name in self._tensors):
            raise CheckpointError(f"{folder}: config.json lists LoRA adapters, but the weight files have none")

    def has(self, name: str) -> bool:
        return super().has(name) or super().has(original_of(name))

    def row_blocks(
        self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """With the change of the chosen task, in float32."""
        if not super().has(original_of(name)):
            yield from super().row_blocks(name, shape, dtype)
            return
        factors = self._factors(name, shape)
        for rows, block in super().row_blocks(original_of(name), shape):
            if factors is None:
                yield rows, block
            else:
                first, second = factors
                weight = block.to(self.device, torch.float32)
                yield rows, torch.addmm(weight, first[rows], second, alpha=self._adapters.scale)

    def _factors(self, name: str, shape: Sequence[int]) -> tuple[Tensor, Tensor] | None:
        """The factors of the pod's own adapter, in the order in which they are multiplied; None without one."""
        chosen = [] if self._adapters.chosen is None else [self._adapters.chosen]
        first, second = self._factors_of(name, shape, chosen)
        return (first[0], second[0]) if chosen else None

    def _factors_of(self, name: str, shape: Sequence[int], chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """[chosen, rows, rank] and [chosen, rank, columns] of the tasks with the numbers `chosen`; the factors of other
        tasks are not read. In the file, embedding tables have the two factors in the opposite order."""
        rows, columns = shape
        tasks, rank = len(self._adapters.names), self._adapters.rank
        order = "AB" if "embeddings." in name else "BA"
        first, second = (
            self.take_rows(f"{parametrized(name)}.0.lora_{letter}", stored, chosen, torch.float32)
            for letter, stored in zip(order, ([tasks, rows, rank], [tasks, rank, columns]), strict=True)
        )
        return first, second

    def changes_of(self, parts: Sequence[tuple[str, int]], inputs: int) -> Changes:
        """The weights include the pod's own adapter, so the change of any other adapter subtracts it."""
        shapes = {f"{name}.weight": [size, inputs] for name, size in parts}
        if not self._keeps_all or not any(super(AdaptedWeights, self).has(original_of(name)) for name in shapes):
            return ()
        tasks = range(len(self._adapters.names))
        factors = [self._factors_of(name, shape, tasks) for name, shape in shapes.items()]
        own = self._adapters.chosen

        def change_of(task: int) -> LowRank | None:
            """Converted at once: in float32 those of all tasks would take more memory than the result."""
            if task == own:
                return None
            first, second = self._factors_in_one(factors, task)
            if own is not None:
                own_first, own_second = self._factors_in_one(factors, own)
                first, second = torch.cat([first, -own_first], 1), torch.cat([second, own_second])
            return LowRank(first.to(self.dtype), second.to(self.dtype))

        return [change_of(task) for task in tasks]

    def _factors_in_one(self, factors: Sequence[tuple[Tensor, Tensor]], task: int) -> tuple[Tensor, Tensor]:
        """The factors of linears that run as one, in float32; the first includes the adapter's scale."""
        first = block_diagonal([first[task] for first, _ in factors]) * self._adapters.scale
        return first, torch.cat([second[task] for _, second in factors])


def block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    diagonal: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return diagonal


def parametrized(name: str) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{module}.parametrizations.{parameter}"


def original_of(name: str) -> str:
    return f"{parametrized(name)}.original"
