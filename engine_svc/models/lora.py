"""LoRA adapters (arXiv 2106.09685): low-rank changes of a checkpoint's weights, one set per task, as in Jina v3.

The adapter that the pod's settings name is merged into the weights block by block while they are read, so it costs no
time in a forward pass and little memory. Without one, the weights are those that all tasks share. If the sequences of a
model may name a task, all adapters stay in memory too, and are applied row by row: each sequence of a batch may have
its own adapter, or none. A linear sees only the rows of a batch, not its sequences, so a context variable holds which
rows have which adapter. `TorchBackend` sets it for a forward pass; linears and `Embeddings` add the changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.model_config import ModelConfig
from engine_svc.models.weights import LoraDelta, LoraDeltas, Weights
from engine_svc.sequences import PackedBatch
from heddle.checkpoint.json_files import CheckpointError


@dataclass(frozen=True, slots=True)
class AdapterRows:
    by_adapter: Sequence[tuple[int, Tensor]]  # adapter, and its rows int32
    others: Tensor  # rows without an adapter, int32

    @classmethod
    def of(cls, rows: Mapping[str, Tensor], tasks: Sequence[str]) -> "AdapterRows | None":
        """`rows` are those of `group_rows_by_adapter`, on the device. None for a pass without adapters."""
        if not rows:
            return None
        return cls([(tasks.index(task), rows[task]) for task in rows if task], rows[""])


_adapter_rows: ContextVar[AdapterRows | None] = ContextVar("adapter_rows", default=None)


@contextmanager
def use_adapters(rows: AdapterRows | None) -> Iterator[None]:
    """Sets the adapters of all forward passes inside the `with` block, in this thread."""
    token = _adapter_rows.set(rows)
    try:
        yield
    finally:
        _adapter_rows.reset(token)


def current_adapter_rows() -> AdapterRows | None:
    """None in a pass without adapters."""
    return _adapter_rows.get()


def group_rows_by_adapter(batch: PackedBatch, tasks: Sequence[str]) -> Mapping[str, npt.NDArray[np.intp]]:
    """The rows of the sequences that name one of `tasks`, by that name, and under "" those of the others. Empty if no
    sequence names one."""
    if not tasks or not any(options.task for options in batch.options):
        return {}
    numbers = np.array([tasks.index(options.task) if options.task else -1 for options in batch.options])
    number_of_token = np.repeat(numbers[batch.option_indices], batch.lengths)
    rows = {task: np.flatnonzero(number_of_token == number) for number, task in enumerate(("", *tasks), -1)}
    return {task: own for task, own in rows.items() if len(own) or not task}


def add_lora(outputs: Tensor, inputs: Tensor, deltas: LoraDeltas) -> None:
    """Adds the adapters' changes, in place, to the outputs of a linear for these `inputs`."""
    for delta, rows in iterate_adapter_rows(deltas):
        low = functional.linear(inputs.index_select(0, rows), delta.lora_a)
        outputs.index_add_(0, rows, functional.linear(low, delta.lora_b))


def add_embedding_lora(outputs: Tensor, ids: Tensor, deltas: LoraDeltas) -> None:
    """Adds the adapters' changes, in place, to the embeddings of these ids. A table with one row has it for all ids."""
    for delta, rows in iterate_adapter_rows(deltas):
        own = ids.index_select(0, rows).clamp(max=len(delta.lora_b) - 1)
        outputs.index_add_(0, rows, functional.embedding(own, delta.lora_b) @ delta.lora_a)


def iterate_adapter_rows(deltas: LoraDeltas) -> Iterator[tuple[LoraDelta, Tensor]]:
    current = current_adapter_rows()
    if deltas and current is not None:
        for adapter, rows in current.by_adapter:
            delta = deltas[adapter]
            if delta is not None:
                yield delta, rows


@dataclass(frozen=True, slots=True)
class LoraConfig:
    names: Sequence[str]  # in the order in which they are stored
    chosen: int | None  # None = no adapter
    rank: int
    scale: float

    @classmethod
    def of(cls, config: ModelConfig) -> "LoraConfig | None":
        """None if the checkpoint has no adapters. Raises CheckpointError for a name that is not one of them."""
        names = config.get("lora_adaptations") or []  # Checkpoint.read has checked that it is a list of names
        if config.adapter and config.adapter not in names:
            known = f"adapters: {', '.join(names)}" if names else "it has none"
            config.refuse(f"there is no adapter {config.adapter} ({known})")
        if not names:
            return None
        rank = config.positive("lora_rank", default=4)
        chosen = names.index(config.adapter) if config.adapter else None
        return cls(names, chosen, rank, config.number("lora_alpha", 1.0) / rank)


class LoraWeights(Weights):
    """Weights some of which are stored as torch's parametrizations: the original, and the changes for every task."""

    def __init__(
        self,
        folder: Path,
        lora: LoraConfig,
        *,
        dtype: torch.dtype,
        device: torch.device,
        prefix: str = "",
        keep_all: bool = False,
    ) -> None:
        """`keep_all`: sequences may name any of the adapters, so all of them stay in memory."""
        super().__init__(folder, dtype=dtype, device=device, prefix=prefix)
        self._lora = lora
        self._keep_all = keep_all
        if (keep_all or lora.chosen is not None) and not any(".lora_A" in name for name in self._tensors):
            raise CheckpointError(f"{folder}: config.json lists LoRA adapters, but the weight files have none")

    def has(self, name: str) -> bool:
        return super().has(name) or super().has(original_name(name))

    def read_blocks(
        self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Adds the change of the chosen task, in float32."""
        if not super().has(original_name(name)):
            yield from super().read_blocks(name, shape, dtype)
            return
        chosen = self._lora.chosen
        lora_b, lora_a = self._read_factors(name, shape, [] if chosen is None else [chosen])
        for rows, block in super().read_blocks(original_name(name), shape):
            if chosen is None:
                yield rows, block
            else:
                weight = block.to(self.device, torch.float32)
                yield rows, torch.addmm(weight, lora_b[0, rows], lora_a[0], alpha=self._lora.scale)

    def _read_factors(self, name: str, shape: Sequence[int], tasks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """float32 [tasks, rows, rank] and [tasks, rank, columns]; the factors of other tasks are not read. Embedding
        tables store the two factors in the opposite order."""
        rows, columns = shape
        count, rank = len(self._lora.names), self._lora.rank
        order = "AB" if "embeddings." in name else "BA"
        lora_b, lora_a = (
            self.load_rows(f"{parametrized_name(name)}.0.lora_{letter}", stored, tasks, torch.float32)
            for letter, stored in zip(order, ([count, rows, rank], [count, rank, columns]), strict=True)
        )
        return lora_b, lora_a

    def load_lora(self, parts: Sequence[tuple[str, int]], inputs: int) -> LoraDeltas:
        """The weights include the chosen adapter, so the change of any other adapter subtracts it."""
        shapes = {f"{name}.weight": [size, inputs] for name, size in parts}
        if not self._keep_all or not any(super(LoraWeights, self).has(original_name(name)) for name in shapes):
            return ()
        tasks = range(len(self._lora.names))
        factors = [self._read_factors(name, shape, tasks) for name, shape in shapes.items()]
        if self.device.type == "meta":
            return ()
        chosen = self._lora.chosen

        def build_delta(task: int) -> LoraDelta | None:
            """Converts at once: in float32 those of all tasks would take more memory than the result."""
            if task == chosen:
                return None
            lora_b, lora_a = self._join_factors(factors, task)
            if chosen is not None:
                chosen_b, chosen_a = self._join_factors(factors, chosen)
                lora_b, lora_a = torch.cat([lora_b, -chosen_b], 1), torch.cat([lora_a, chosen_a])
            return LoraDelta(lora_b.to(self.dtype), lora_a.to(self.dtype))

        return [build_delta(task) for task in tasks]

    def _join_factors(self, factors: Sequence[tuple[Tensor, Tensor]], task: int) -> tuple[Tensor, Tensor]:
        """The factors of linears that run as one, in float32; the first includes the adapter's scale."""
        lora_b: Tensor = torch.block_diag(*(lora_b[task] for lora_b, _ in factors))  # type: ignore[no-untyped-call]
        return lora_b * self._lora.scale, torch.cat([lora_a[task] for _, lora_a in factors])


def parametrized_name(name: str) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{module}.parametrizations.{parameter}"


def original_name(name: str) -> str:
    return f"{parametrized_name(name)}.original"
