"""Parity cases: small random checkpoints, written to disk in the layout of the real ones, and a reference for their
outputs. The files of `tests/engine_svc/models/cases_of/` list them by family.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from engine_svc.models.model import Model
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.sentence_modules import Pooling
from tests.checkpoints import write_old_modules
from tests.engine_svc.models.packed import ALL_LENGTHS, split

OUTPUTS = {
    ModelKind.EMBEDDER: Output.TOKEN_VECTORS,
    ModelKind.SPARSE_EMBEDDER: Output.SPARSE_VECTOR,
    ModelKind.RERANKER: Output.LOGITS,
    ModelKind.CLASSIFIER: Output.LOGITS,
    ModelKind.TOKEN_CLASSIFIER: Output.TOKEN_LOGITS,
}

Array = np.ndarray[Any, np.dtype[np.float32]]

# From hidden states [tokens, hidden] to their pooled vector. Each embedder is compared by each of these.
POOLED: Mapping[Pooling, Callable[[Array], Array]] = {
    Pooling.CLS: lambda hidden: hidden[0],
    Pooling.MEAN: lambda hidden: hidden.mean(0),
    Pooling.MAX: lambda hidden: hidden.max(0),
    Pooling.MEAN_SQRT_LEN: lambda hidden: hidden.sum(0) / len(hidden) ** 0.5,
    Pooling.WEIGHTED_MEAN: lambda hidden: np.average(hidden, 0, weights=np.arange(1, len(hidden) + 1)),
    Pooling.LAST_TOKEN: lambda hidden: hidden[-1],
}

# From ids and type ids of one sequence, both int64 [1, tokens], to the output of the case.
Reference = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """`write` writes the checkpoint to a folder, and returns its reference."""

    architecture: str  # its name in the table of models
    name: str  # what is special about this checkpoint
    kind: ModelKind
    write: Callable[[Path], Reference]
    has_types: bool = False  # token type ids make a difference
    lengths: Sequence[int] = ALL_LENGTHS
    adapter: str = ""  # of the checkpoint's own

    @property
    def id(self) -> str:
        return f"{self.architecture} {self.kind.replace('_', ' ')}, {self.name}"


def randomize(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Draws all weights, so that every part of the model matters: constructors leave some of them 0 or 1. Sets
    evaluation mode."""
    model.train(mode=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(noise, alpha=0.1)
            else:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
    return model


def save(model: PreTrainedModel, folder: Path, **wishes: Any) -> PreTrainedModel:
    """Saves the model with `save_pretrained`, and returns it."""
    model.save_pretrained(folder, **wishes)
    return model


def make_case(
    model_class: type[PreTrainedModel],
    kind: ModelKind,
    name: str,
    config: Mapping[str, Any],
    *finish: Callable[[Path], None],
    has_types: bool = False,
    first_position: int | None = None,
    lengths: Sequence[int] = ALL_LENGTHS,
    seed: int = 0,
    **save_options: Any,
) -> Case:
    """A case of a class of transformers. `finish` changes the folder after it is saved."""
    config_class = model_class.config_class
    assert config_class is not None

    def write(folder: Path) -> Reference:
        if kind is ModelKind.SPARSE_EMBEDDER:
            write_old_modules(folder, ["MLMTransformer", "SpladePooling"])
        model = save(randomize(model_class(config_class(**config)), seed), folder, **save_options)
        for step in finish:
            step(folder)
        return make_reference(model, kind, has_types=has_types, first_position=first_position)

    return Case(config_class.model_type, name, kind, write, has_types, lengths)


def load_model(folder: Path) -> Model:
    return Model.load(Checkpoint.read(folder), dtype=torch.float32, device=torch.device("cpu"))


def rename_tensor(name: str, replacements: Iterable[tuple[str, str]]) -> str:
    """The name of a tensor, from the names of one library to those of another."""
    for own, theirs in replacements:
        name = name.replace(own, theirs)
    return name


def make_reference(
    model: PreTrainedModel, kind: ModelKind, *, has_types: bool = False, first_position: int | None = None
) -> Reference:
    """Computes with transformers. `first_position` is for models that count positions themselves and leave out tokens
    with the padding id, which random batches may have anywhere."""

    def reference(ids: Tensor, types: Tensor) -> Tensor:
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if has_types:
            inputs["token_type_ids"] = types
        if first_position is not None:
            inputs["position_ids"] = torch.arange(first_position, first_position + ids.shape[1])[None]
        if kind is ModelKind.EMBEDDER:
            return model.base_model(**inputs).last_hidden_state[0]  # type: ignore[no-any-return]
        logits: Tensor = model(**inputs).logits[0]
        if kind is ModelKind.SPARSE_EMBEDDER:
            return torch.log1p(torch.relu(logits)).amax(0)
        return logits

    return reference


@torch.inference_mode()
def run_each_alone(reference: Reference, batch: PackedBatch) -> list[Array]:
    """Each sequence alone, so that transformers pads nothing."""
    columns = zip(split(batch.token_ids, batch), split(batch.type_ids, batch), strict=True)
    return [reference(ids[None], types[None]).float().numpy() for ids, types in columns]
