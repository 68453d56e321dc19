"""What the cases of BERT's kin share: models of transformers, saved as its versions of all ages have saved them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from heddle.checkpoint import ModelKind
from tests.checkpoints import POSITIONS, write_old_modules
from tests.engine_svc.models.cases import Case, Reference, randomized, reference_of, saved
from tests.engine_svc.models.packed import ALL_LENGTHS

Tensors = dict[str, Tensor]


def case(
    model_class: type[PreTrainedModel],
    kind: ModelKind,
    name: str,
    config: Mapping[str, Any],
    *,
    has_types: bool = False,
    first_position: int | None = None,
    lengths: Sequence[int] = ALL_LENGTHS,
    seed: int = 0,
    stated: Mapping[str, Any] | None = None,
    renamed: Callable[[Tensors], Tensors] | None = None,
) -> Case:
    """`stated` is what config.json has, and `renamed` what the weights' file has, otherwise than transformers 5
    writes them."""
    config_class = model_class.config_class
    assert config_class is not None

    def write(folder: Path) -> Reference:
        if kind is ModelKind.SPARSE_EMBEDDER:
            write_old_modules(folder, ["MLMTransformer", "SpladePooling"])
        model = saved(randomized(model_class(config_class(**config)), seed), folder)
        change_config(folder, stated or {})
        if renamed is not None:
            file = folder / "model.safetensors"
            save_file(renamed(load_file(file)), file)
        return reference_of(model, kind, has_types=has_types, first_position=first_position)

    return Case(config_class.model_type, name, kind, write, has_types=has_types, lengths=lengths)


def change_config(folder: Path, changes: Mapping[str, Any]) -> None:
    """None takes a setting out."""
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


# What transformers 4 wrote into config.json, and 5 does not.
OF_TRANSFORMERS_4: dict[str, Any] = {
    "dtype": None,
    "torch_dtype": "float32",
    "position_embedding_type": "absolute",
    "use_cache": True,
    "gradient_checkpointing": False,
    "output_past": True,
    "transformers_version": "4.8.1",
}


def as_of_old(tensors: Tensors) -> Tensors:
    """TensorFlow's names of layer norms, and a buffer that was saved until transformers 4.31."""
    renamed = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
    renamed = {name.replace("LayerNorm.bias", "LayerNorm.beta"): tensor for name, tensor in renamed.items()}
    return {**renamed, "embeddings.position_ids": torch.arange(POSITIONS)[None]}
