"""The config.json of a checkpoint, as the architectures read it. A missing or unsupported setting raises
CheckpointError, in one line that names the file. Sizes also go by the names that DistilBERT has for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from engine_svc.models.activations import ACTIVATIONS, Activation
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError


@dataclass(frozen=True, slots=True)
class ModelConfig:
    values: Mapping[str, Any]
    path: Path  # of config.json
    adapter: str = ""  # the one that the pod's settings name; "" = none

    @classmethod
    def of(cls, checkpoint: Checkpoint, adapter: str = "") -> "ModelConfig":
        return cls(checkpoint.config, checkpoint.folder / "config.json", adapter)

    @property
    def hidden_size(self) -> int:
        return self.positive("hidden_size", "dim")

    @property
    def intermediate_size(self) -> int:
        return self.positive("intermediate_size", "hidden_dim")

    @property
    def vocab_size(self) -> int:
        return self.positive("vocab_size")

    @property
    def num_layers(self) -> int:
        return self.positive("num_hidden_layers", "n_layers")

    @property
    def num_heads(self) -> int:
        return self.positive("num_attention_heads", "n_heads")

    @property
    def head_dim(self) -> int:
        if self.get("head_dim"):
            return self.positive("head_dim")
        if self.hidden_size % self.num_heads:
            self.refuse(f"the hidden size {self.hidden_size} is not a multiple of the number of heads {self.num_heads}")
        return self.hidden_size // self.num_heads

    def get(self, name: str, default: Any = None) -> Any:
        """The default also stands for null."""
        value = self.values.get(name)
        return default if value is None else value

    def positive(self, *names: str, default: int | None = None) -> int:
        """A positive integer, by the first of its names that the config has."""
        value = next((self.values[name] for name in names if self.values.get(name) is not None), default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.refuse(f"{names[0]} is missing, or not a positive number")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.refuse(f"{name} is not a number")
        return float(value)

    def activation(self, name: str = "hidden_act", default: str = "gelu") -> Activation:
        stated = self.get(name, default)
        if stated not in ACTIVATIONS:
            self.refuse(f"{name} {stated} is not supported")
        return ACTIVATIONS[stated]

    def require(self, name: str, *supported: Any) -> None:
        """Refuses a setting that is not one of these values. A missing setting counts as the first of them."""
        value = self.get(name, supported[0])
        if value not in supported:
            self.refuse(f"{name} {value} is not supported")

    def refuse(self, reason: str) -> NoReturn:
        raise CheckpointError(f"{self.path}: {reason}")
