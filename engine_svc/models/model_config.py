"""The config.json of a checkpoint, as the architectures read it: what is missing or not supported is said in one line
that names the file."""

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
    adapter: str = ""  # that was asked for; "" = none

    @classmethod
    def of(cls, checkpoint: Checkpoint, adapter: str = "") -> "ModelConfig":
        return cls(checkpoint.config, checkpoint.folder / "config.json", adapter)

    def get(self, name: str, default: Any = None) -> Any:
        """Also the default where the config has null."""
        value = self.values.get(name)
        return default if value is None else value

    def positive(self, *names: str, default: int | None = None) -> int:
        """A whole number from 1 on, by the first of its names that is there."""
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

    def head_dim(self, hidden: int, heads: int) -> int:
        if self.get("head_dim"):
            return self.positive("head_dim")
        if hidden % heads:
            self.refuse(f"the hidden size {hidden} is not a multiple of the number of heads {heads}")
        return hidden // heads

    def require(self, name: str, *supported: Any) -> None:
        """The setting must be one of these, or absent."""
        value = self.get(name, supported[0])
        if value not in supported:
            self.refuse(f"{name} {value} is not supported")

    def refuse(self, reason: str) -> NoReturn:
        raise CheckpointError(f"{self.path}: {reason}")
