"""The Dense modules of sentence-transformers: linears that follow pooling, or that each token's vector goes through.

They compute in float32, as pooling does. Their weights lie in folders of their own.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine_svc.models.linear import ACTIVATIONS, load_linear
from engine_svc.models.weights import Weights
from heddle.checkpoint_files import CheckpointError
from heddle.sentence_modules import Dense

Stage = Callable[[Tensor], Tensor]  # of float32 rows


def load_dense(modules: Sequence[Dense], model: Weights, width: int) -> list[Stage]:
    """`model` is that of the transformer; `width` that of the rows that the first module is given. Raises
    CheckpointError."""
    for module in modules:
        if module.inputs != width:
            raise CheckpointError(
                f"{module.folder / 'config.json'}: in_features {module.inputs} is not the width {width} of the vectors "
                f"that the module is given"
            )
        width = module.outputs
    return [load_one(module, model) for module in modules]


def load_one(module: Dense, model: Weights) -> Stage:
    is_in_model = module.folder == model.folder  # Stanford's ColBERT
    weights = model if is_in_model else Weights(module.folder, dtype=torch.float32, device=model.device)
    return load_linear(
        *(weights, "linear", module.outputs, module.inputs),
        bias=module.has_bias,
        activation=ACTIVATIONS[module.activation],
        dtype=torch.float32,
    )


def through(stages: Sequence[Stage], rows: Tensor) -> Tensor:
    for stage in stages:
        rows = stage(rows)
    return rows
