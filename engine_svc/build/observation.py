"""Observers of a running model's linear inputs, keys and values. `engine_svc.build.calibration` installs them."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from engine_svc.models.transformer import Attention, BranchInput, Rotations


@dataclass(frozen=True, slots=True, eq=False)
class LinearInputs:
    """On the CPU."""

    largest: Tensor  # float32 [inputs]: the largest magnitude of each channel
    samples: Tensor  # [rows, inputs], in the model's type, to compare products with


@dataclass(frozen=True, slots=True)
class CurrentPass:
    batch: int
    tokens: int
    samples: int


class Recorder:
    """Collects largest magnitudes and samples. Threads may share a recorder."""

    def __init__(self) -> None:
        self.keys: dict[str, float] = {}
        self.values: dict[str, float] = {}
        self._largest: dict[str, Tensor] = {}
        self._samples: dict[str, dict[int, Tensor]] = {}  # by name, then by batch
        self._lock = threading.Lock()
        self._current = threading.local()

    @classmethod
    def merge(cls, parts: Sequence["Recorder"]) -> "Recorder":
        merged = cls()
        for part in parts:
            for name in part.names:
                merged._add(name, part._largest[name], part._samples[name])  # noqa: SLF001 - of this class
            merged.add_keys_and_values(part.keys, part.values)
        return merged

    @property
    def names(self) -> list[str]:
        return list(self._largest)

    def inputs(self, name: str) -> LinearInputs:
        """Samples are in the order of batch indices, whichever batch ran first."""
        samples = self._samples[name]
        return LinearInputs(self._largest[name].cpu(), torch.cat([samples[batch].cpu() for batch in sorted(samples)]))

    def observe(self, names: Sequence[str], linear: Callable[[Any], Tensor]) -> "ObservedLinear":
        """For `Weights.observe`."""
        return ObservedLinear(linear, names[0], self)

    @contextmanager
    def recording(self, batch: int, tokens: int, samples: int) -> Iterator[None]:
        """Surrounds a pass of this thread over `batch`. Keeps `samples` of its rows. Rows after the first `tokens` are
        padding and are ignored."""
        self._current.pass_ = CurrentPass(batch, tokens, samples)
        try:
            yield
        finally:
            del self._current.pass_

    def record(self, name: str, rows: Tensor) -> None:
        """`rows` are the inputs [rows, inputs] of the group `name`."""
        current: CurrentPass = self._current.pass_
        rows = rows[: current.tokens]
        step = max(1, len(rows) // max(1, current.samples))
        samples = {current.batch: rows[::step][: current.samples].clone()} if current.samples else {}
        largest = rows.abs().amax(0).float()
        with self._lock:
            self._add(name, largest, samples)

    def record_keys_and_values(self, name: str, key: Tensor, value: Tensor) -> None:
        tokens = self._current.pass_.tokens
        largest_key, largest_value = (float(rows[:tokens].abs().max()) for rows in (key, value))
        with self._lock:
            self.add_keys_and_values({name: largest_key}, {name: largest_value})

    def add_keys_and_values(self, keys: dict[str, float], values: dict[str, float]) -> None:
        for largest, new in ((self.keys, keys), (self.values, values)):
            largest |= {name: max(number, largest.get(name, 0.0)) for name, number in new.items()}

    def _add(self, name: str, largest: Tensor, samples: dict[int, Tensor]) -> None:
        known = self._largest.get(name)
        self._largest[name] = largest if known is None else torch.maximum(known, largest.to(known.device))
        self._samples.setdefault(name, {}).update(samples)


@dataclass(frozen=True, slots=True)
class ObservedLinear:
    linear: Callable[[Any], Tensor]
    name: str
    recorder: Recorder

    def __call__(self, inputs: Tensor) -> Tensor:
        self.recorder.record(self.name, inputs)
        return self.linear(inputs)


@dataclass(frozen=True, slots=True)
class ObservedAttention(Attention):
    name: str = ""
    recorder: Recorder | None = None

    @classmethod
    def of(cls, attention: Attention, recorder: Recorder) -> Attention:
        """Returns kinds of attention without a key-value cache unchanged."""
        if type(attention) is not Attention or not isinstance(attention.qkv_proj, ObservedLinear):
            return attention
        own = {field.name: getattr(attention, field.name) for field in fields(attention)}
        return cls(**own, name=attention.qkv_proj.name, recorder=recorder)

    def project(self, hidden: BranchInput, rotations: Rotations) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = Attention.project(self, hidden, rotations)
        assert self.recorder is not None
        self.recorder.record_keys_and_values(self.name, key, value)
        return query, key, value
