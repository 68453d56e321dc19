"""The modules of sentence-transformers that vectors go through one after the other, of tokens or pooled: Dense,
LayerNorm and Normalize. `heddle.sentence_modules` reads them; the engine's heads run them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heddle.checkpoint_files import CheckpointError, field_of
from heddle.module_listing import OF_VECTORS, TOKENS, Module

# Classes of torch.nn that need no arguments, have no weights, and treat each number for itself ...
ELEMENTWISE = frozenset(
    {
        *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU"),
        *("LogSigmoid", "Mish", "ReLU", "ReLU6", "SELU", "Sigmoid", "SiLU", "Softplus", "Softshrink", "Softsign"),
        *("Tanh", "Tanhshrink"),
    }
)
# ... or each vector. Of tokens these would mix the texts of a batch, in sentence-transformers.
ROWWISE = frozenset({"LogSoftmax", "Softmax", "Softmin"})


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear, and the folder that has its weights (`linear.weight`, `linear.bias`)."""

    folder: Path
    inputs: int
    outputs: int
    has_bias: bool = True
    activation: str = "Tanh"  # class of torch.nn
    has_residual: bool = False  # adds what it was given, through `residual.weight` where the widths differ


@dataclass(frozen=True, slots=True)
class LayerNorm:
    folder: Path  # has `norm.weight` and `norm.bias`
    dimension: int


@dataclass(frozen=True, slots=True)
class Normalize:
    """To length 1."""


VectorModule = Dense | LayerNorm | Normalize


def vector_modules_of(modules: Sequence[Module], subject: str) -> tuple[VectorModule, ...]:
    """Those of one subject, in their order. Raises CheckpointError."""
    return tuple(READERS[module.kind](module) for module in modules if is_of_vectors(module, subject))


def is_of_vectors(module: Module, subject: str) -> bool:
    return module.kind in OF_VECTORS and module.subject == subject


def without_last_normalize(modules: tuple[VectorModule, ...]) -> tuple[VectorModule, ...]:
    """Whether vectors are normalised in the end is for the request to say."""
    return without_last_normalize(modules[:-1]) if modules and isinstance(modules[-1], Normalize) else modules


def width_behind(modules: Sequence[VectorModule], width: int) -> int:
    """`width` is that of the vectors that the first module is given."""
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
