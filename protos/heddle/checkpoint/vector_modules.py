"""The modules of sentence-transformers that transform vectors, before or after pooling: Dense, LayerNorm and Normalize.

Called by `sentence_modules`. The engine's heads run the modules.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heddle.checkpoint.json_files import CheckpointError, get_field, get_positive
from heddle.checkpoint.module_listing import TOKENS, VECTOR_KINDS, Module

# Classes of torch.nn without arguments and weights that apply to each number ...
ELEMENTWISE = frozenset(
    {
        *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU"),
        *("LogSigmoid", "Mish", "ReLU", "ReLU6", "SELU", "Sigmoid", "SiLU", "Softplus", "Softshrink", "Softsign"),
        *("Tanh", "Tanhshrink"),
    }
)
# ... or to each vector. Not supported for tokens, where sentence-transformers would mix the texts of a batch.
ROWWISE = frozenset({"LogSoftmax", "Softmax", "Softmin"})


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer."""

    folder: Path  # has `linear.weight` and `linear.bias`
    inputs: int
    outputs: int
    has_bias: bool = True
    activation: str = "Tanh"  # a class of torch.nn
    has_residual: bool = False  # adds the input, projected by `residual.weight` if the widths differ


@dataclass(frozen=True, slots=True)
class LayerNorm:
    folder: Path  # has `norm.weight` and `norm.bias`
    dimension: int


@dataclass(frozen=True, slots=True)
class Normalize:
    """Scales vectors to length 1."""


VectorModule = Dense | LayerNorm | Normalize


def read_vector_modules(modules: Sequence[Module], subject: str) -> tuple[VectorModule, ...]:
    """Returns the modules that transform `subject`: SENTENCE or TOKENS. Raises CheckpointError."""
    return tuple(
        READERS[module.kind](module) for module in modules if module.kind in VECTOR_KINDS and module.subject == subject
    )


def drop_trailing_normalize(modules: tuple[VectorModule, ...]) -> tuple[VectorModule, ...]:
    """Each request decides whether its vectors are normalized."""
    return drop_trailing_normalize(modules[:-1]) if modules and isinstance(modules[-1], Normalize) else modules


def compute_width(modules: Sequence[VectorModule], width: int) -> int:
    """Returns the width of the output for input vectors of this width."""
    return next((module.outputs for module in reversed(modules) if isinstance(module, Dense)), width)


def read_dense(module: Module) -> Dense:
    settings, place = module.settings, module.folder / "config.json"
    return Dense(
        folder=module.folder,
        inputs=get_positive(settings, "in_features", place),
        outputs=get_positive(settings, "out_features", place),
        has_bias=get_field(settings, "bias", bool, place, default=True),
        activation=read_activation(module),
        has_residual=get_field(settings, "use_residual", bool, place, default=False),
    )


def read_activation(module: Module) -> str:
    place = module.folder / "config.json"
    stated = get_field(module.settings, "activation_function", str, place, "torch.nn.modules.activation.Tanh")
    package, _, name = stated.rpartition(".")
    known = ELEMENTWISE if module.subject == TOKENS else ELEMENTWISE | ROWWISE
    if package.split(".")[:2] != ["torch", "nn"] or name not in known:
        raise CheckpointError(f"{place} has the activation {stated}, which is not supported")
    return name


def read_layer_norm(module: Module) -> LayerNorm:
    return LayerNorm(module.folder, get_positive(module.settings, "dimension", module.folder / "config.json"))


READERS: Mapping[str, Callable[[Module], VectorModule]] = {
    "Dense": read_dense,
    "LayerNorm": read_layer_norm,
    "Normalize": lambda _: Normalize(),
}
