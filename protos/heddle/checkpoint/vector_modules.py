"""The modules of sentence-transformers that transform vectors, before or after pooling: Dense, LayerNorm and Normalize.

Called by `sentence_modules`. The engine's heads run the modules.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heddle.checkpoint.json_files import CheckpointError, field_of
from heddle.checkpoint.module_listing import TOKENS, VECTOR_KINDS, Module

# Classes of torch.nn without arguments and weights that are applied to each number ...
ELEMENTWISE = frozenset(
    {
        *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU"),
        *("LogSigmoid", "Mish", "ReLU", "ReLU6", "SELU", "Sigmoid", "SiLU", "Softplus", "Softshrink", "Softsign"),
        *("Tanh", "Tanhshrink"),
    }
)
# ... or to each vector. Not for tokens: sentence-transformers would mix the texts of a batch there.
ROWWISE = frozenset({"LogSoftmax", "Softmax", "Softmin"})


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear, and the folder that has its weights (`linear.weight`, `linear.bias`)."""

    folder: Path
    inputs: int
    outputs: int
    has_bias: bool = True
    activation: str = "Tanh"  # class of torch.nn
    has_residual: bool = False  # adds its input, projected by `residual.weight` if the widths differ


@dataclass(frozen=True, slots=True)
class LayerNorm:
    folder: Path  # has `norm.weight` and `norm.bias`
    dimension: int


@dataclass(frozen=True, slots=True)
class Normalize:
    """Scales vectors to length 1."""


VectorModule = Dense | LayerNorm | Normalize


def vector_modules_of(modules: Sequence[Module], subject: str) -> tuple[VectorModule, ...]:
    """The modules that transform `subject`: vectors of tokens, or of sentences. Raises CheckpointError."""
    return tuple(READERS[module.kind](module) for module in modules if transforms_vectors(module, subject))


def transforms_vectors(module: Module, subject: str) -> bool:
    return module.kind in VECTOR_KINDS and module.subject == subject


def without_last_normalize(modules: tuple[VectorModule, ...]) -> tuple[VectorModule, ...]:
    """Drops Normalize modules at the end: the request decides whether its vectors are normalised."""
    return without_last_normalize(modules[:-1]) if modules and isinstance(modules[-1], Normalize) else modules


def width_after(modules: Sequence[VectorModule], width: int) -> int:
    """The width of the vectors that the modules make of vectors of `width`."""
    return next((module.outputs for module in reversed(modules) if isinstance(module, Dense)), width)


def dense_of(module: Module) -> Dense:
    settings, place = module.settings, module.folder / "config.json"
    return Dense(
        folder=module.folder,
        inputs=size_of(module, "in_features"),
        outputs=size_of(module, "out_features"),
        has_bias=field_of(settings, "bias", bool, place, default=True),
        activation=activation_of(module),
        has_residual=field_of(settings, "use_residual", bool, place, default=False),
    )


def activation_of(module: Module) -> str:
    place = module.folder / "config.json"
    stated = field_of(module.settings, "activation_function", str, place, "torch.nn.modules.activation.Tanh")
    package, _, name = stated.rpartition(".")
    known = ELEMENTWISE if module.subject == TOKENS else ELEMENTWISE | ROWWISE
    if package.split(".")[:2] != ["torch", "nn"] or name not in known:
        raise CheckpointError(f"{place} has the activation {stated}, which is not supported")
    return name


def layer_norm_of(module: Module) -> LayerNorm:
    return LayerNorm(module.folder, size_of(module, "dimension"))


def size_of(module: Module, name: str) -> int:
    size = module.settings.get(name)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise CheckpointError(f"{module.folder / 'config.json'} has no {name}, or one that is not a positive number")
    return size


READERS: Mapping[str, Callable[[Module], VectorModule]] = {
    "Dense": dense_of,
    "LayerNorm": layer_norm_of,
    "Normalize": lambda _: Normalize(),
}
