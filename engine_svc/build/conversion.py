"""Decides which tensors of a checkpoint go into an artifact, under which names and in which order.

An artifact stores each tensor that the model uses once, in loading order, so that fused parts (query, key, value) are
adjacent. Names are those of current transformers versions, without a prefix that only a model with a head needs.
`artifact` calls this.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine_svc.models.architectures.registry import find_architecture
from engine_svc.models.lora import LoraConfig
from engine_svc.models.model import load_head
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.quantization import find_quantization
from engine_svc.models.stored_tensors import FLOAT_TYPES, TYPE_NAMES, StoredTensor, open_stored_tensors
from engine_svc.models.weights import BUFFERS, Weights
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.checkpoint import EMBEDDERS
from heddle.checkpoint.json_files import CheckpointError
from heddle.quantization import NO_QUANT

TYPES = {name: dtype for dtype, name in TYPE_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Conversion:
    """One stored tensor and how the artifact stores it."""

    name: str
    stored: StoredTensor
    dtype: torch.dtype  # in the artifact, if the tensor is not quantized
    group: str = ""  # of a linear's weight: the same for linears that are fused

    @property
    def is_linear(self) -> bool:
        return bool(self.group)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.stored.shape)


@dataclass(slots=True)
class Use:
    """A tensor that the model loads."""

    name: str  # in the bare model, as current transformers versions name it
    stored_name: str
    stored: StoredTensor
    is_stand_in: bool  # the file has only a tensor that is tied to this one
    follows_model_type: bool  # always loaded in the model's data type


class RecordingWeights(Weights):
    """Records which tensors a model loads, in which order, and which linears are fused. Loading on the device "meta"
    runs each architecture's own loading code without reading data."""

    def __init__(self, folder: Path, *, prefix: str, without: Collection[str] = ()) -> None:
        """`without` are names of stored tensors to hide."""
        super().__init__(folder, dtype=torch.float32, device=torch.device("meta"), prefix=prefix)
        for name in without:
            del self._tensors[name]
        self.uses: dict[str, Use] = {}  # by stored name, in loading order
        self._name_of = {id(stored): name for name, stored in self._tensors.items()}
        self.linears: list[Sequence[str]] = []  # of the transformer: names of fused parts
        self._stand_ins: dict[str, str] = {}  # from the tied tensor in the file to the name that the model prefers
        self._follows_model_type = False

    def first_present(self, *names: str) -> str:
        found = super().first_present(*names)
        if found != names[0]:
            self._stand_ins[found] = names[0]
        return found

    def load_joined(
        self,
        parts: Sequence[tuple[str, Sequence[int]]],
        dtype: torch.dtype | None = None,
        *,
        is_temporary: bool = False,
    ) -> Tensor:
        # `load` calls this too.
        self._follows_model_type = dtype is None
        try:
            return super().load_joined(parts, dtype, is_temporary=is_temporary)
        finally:
            self._follows_model_type = False

    def note_linear(self, names: Sequence[str], linear: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
        self.linears.append(names)
        return linear

    def _find(self, name: str) -> StoredTensor:
        stored = super()._find(name)
        key, preferred = self._name_of[id(stored)], self._stand_ins.get(name, name)
        use = self.uses.setdefault(key, Use(preferred, key, stored, preferred != name, follows_model_type=True))
        use.follows_model_type &= self._follows_model_type
        return stored


def convert_model(checkpoint: Checkpoint, dtype: torch.dtype | None) -> list[Conversion]:
    """Returns the tensors of transformer and head. `dtype` applies to tensors that the model loads in its own data
    type; those that it always loads in float32, such as norms and score heads, keep their stored type.

    A checkpoint with adapters or quantized weights keeps all tensors and names. Raises CheckpointError if the engine
    cannot load the checkpoint."""
    config = ModelConfig.of(checkpoint)
    if find_quantization(checkpoint, NO_QUANT) is not None or LoraConfig.of(config) is not None:
        return convert_all(checkpoint.folder)
    weights = record_uses(checkpoint, config)
    duplicates = find_duplicates(weights, config)
    if duplicates:
        weights = record_uses(checkpoint, config, without=duplicates)
    prefix = find_architecture(config).prefix
    uses = list(weights.uses.values())
    group_of = {f"{part}.weight": parts[0] for parts in weights.linears for part in parts}
    conversions = [
        Conversion(
            name,
            use.stored,
            dtype if dtype is not None and use.follows_model_type else get_torch_type(use.stored),
            group_of.get(use.name, ""),
        )
        for name, use in zip(choose_names(uses, prefix, checkpoint), uses, strict=True)
    ]
    if len({conversion.name for conversion in conversions}) < len(conversions):
        raise CheckpointError(f"{checkpoint.folder} stores a tensor under two names")
    return conversions


def convert_all(folder: Path) -> list[Conversion]:
    """Keeps all tensors of a folder and their names, except buffers that old versions of transformers saved."""
    stored = open_stored_tensors(folder)
    return [
        Conversion(name, tensor, get_torch_type(tensor))
        for name, tensor in stored.items()
        if not name.endswith(BUFFERS)
    ]


def get_torch_type(stored: StoredTensor) -> torch.dtype:
    if stored.data_type not in TYPES:
        raise CheckpointError(f"{stored.path}: tensor {stored.name} is {stored.data_type}, which is not supported")
    return TYPES[stored.data_type]


def record_uses(checkpoint: Checkpoint, config: ModelConfig, without: Collection[str] = ()) -> RecordingWeights:
    architecture = find_architecture(config)
    weights = RecordingWeights(checkpoint.folder, prefix=architecture.prefix, without=without)
    architecture.load(config, weights.with_quantization(None, weights.note_linear))
    load_head(checkpoint, config, architecture, weights)
    return weights


def find_duplicates(weights: RecordingWeights, config: ModelConfig) -> list[str]:
    """Returns the stored names of output embeddings that equal the word embeddings, if the config ties the two."""
    if not config.get("tie_word_embeddings", True):
        return []
    tables = [use for use in weights.uses.values() if is_embedding_table(use.stored, config.vocab_size)]
    return [other.stored_name for other in tables[1:] if have_equal_values(tables[0].stored, other.stored)]


def is_embedding_table(stored: StoredTensor, rows: int) -> bool:
    return len(stored.shape) == 2 and stored.shape[0] == rows


def have_equal_values(one: StoredTensor, other: StoredTensor) -> bool:
    is_alike = list(one.shape) == list(other.shape) and one.data_type == other.data_type
    return is_alike and one.data_type in FLOAT_TYPES and all(blocks_are_equal(one, other))


def blocks_are_equal(one: StoredTensor, other: StoredTensor) -> Iterator[bool]:
    for rows in one.blocks():
        blocks = one.read(rows), other.read(rows)
        yield torch.equal(*blocks)
        one.release(blocks[0])
        other.release(blocks[1])


def choose_names(uses: Sequence[Use], prefix: str, checkpoint: Checkpoint) -> Iterator[str]:
    """Models with a head keep the prefix of their transformer, as transformers saves it. Embedders whose tensors all
    have the prefix were saved from such a model, and lose it."""
    are_prefixed = [use.stored_name.startswith(prefix) and not use.name.startswith(prefix) for use in uses]
    own = [is_prefixed for use, is_prefixed in zip(uses, are_prefixed, strict=True) if not use.is_stand_in]
    loses_prefix = checkpoint.kind in EMBEDDERS and all(own)
    for use, is_prefixed in zip(uses, are_prefixed, strict=True):
        keeps_prefix = is_prefixed or (use.is_stand_in and any(own))
        yield prefix + use.name if keeps_prefix and not loses_prefix else use.name
