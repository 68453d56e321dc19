"""The modules of sentence-transformers that transform vectors before or after pooling: Dense, LayerNorm and Normalize.

They compute in float32, like pooling. Each has its weights in a folder of its own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine_svc.models.linear import Linear, load_linear
from engine_svc.models.norms import load_layer_norm
from engine_svc.models.weights import Weights
from heddle.checkpoint.checkpoint import Checkpoint, get_hidden_size
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.vector_modules import ROWWISE, Dense, LayerNorm, Normalize, VectorModule

Stage = Callable[[Tensor], Tensor]  # of float32 rows

# The default of torch.nn.LayerNorm, which sentence-transformers keeps.
LAYER_NORM_EPSILON = 1e-5


def load_token_modules(checkpoint: Checkpoint, model: Weights) -> list[Stage]:
    width = get_hidden_size(checkpoint.config, checkpoint.folder)
    return load_vector_modules(checkpoint.token_modules, model, width)


def load_vector_modules(modules: Sequence[VectorModule], model: Weights, width: int) -> list[Stage]:
    """`model` has the weights of the transformer; `width` is the width of the first module's input. Raises
    CheckpointError."""
    stages: list[Stage] = []
    for module in modules:
        match module:
            case Dense():
                check_width(module.folder, "in_features", module.inputs, width)
                stages.append(load_dense(module, model))
                width = module.outputs
            case LayerNorm():
                check_width(module.folder, "dimension", module.dimension, width)
                weights = Weights(module.folder, dtype=torch.float32, device=model.device)
                stages.append(load_layer_norm(weights, "norm", width, LAYER_NORM_EPSILON))
            case Normalize():
                stages.append(partial(functional.normalize, dim=-1))
    return stages


def check_width(folder: Path, setting: str, stated: int, width: int) -> None:
    if stated != width:
        raise CheckpointError(
            f"{folder / 'config.json'}: {setting} is {stated}, but the vectors that enter the module have width {width}"
        )


def load_dense(module: Dense, model: Weights) -> Stage:
    is_in_model = module.folder == model.folder  # Stanford's ColBERT
    weights = model if is_in_model else Weights(module.folder, dtype=torch.float32, device=model.device)
    load = partial(load_linear, weights, outputs=module.outputs, inputs=module.inputs, dtype=torch.float32)
    linear = load("linear", bias=module.has_bias)
    activation = build_activation(module.activation)
    if not module.has_residual:
        return lambda rows: activation(linear(rows))
    shortcut: Linear = nn.Identity() if module.inputs == module.outputs else load("residual", bias=False)
    return lambda rows: activation(linear(rows)) + shortcut(rows)


def build_activation(name: str) -> Stage:
    """`name` is one that `heddle.checkpoint.vector_modules` accepts."""
    activation: Stage = getattr(nn, name)(dim=-1) if name in ROWWISE else getattr(nn, name)()
    return activation


def apply_stages(stages: Sequence[Stage], rows: Tensor) -> Tensor:
    for stage in stages:
        rows = stage(rows)
    return rows
