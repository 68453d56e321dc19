"""Fake CUDA streams and events on a CPU. Operations run at once, and a log keeps the order in which they were queued,
recorded and awaited."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from engine_svc.backends import cuda_passes


class FakeEvent:
    def __init__(self, device: "FakeDevice", stream: "FakeStream | None" = None) -> None:
        self.device, self.stream = device, stream

    def record(self, stream: "FakeStream") -> None:
        self.stream = stream
        self.device.write(f"record {stream.name}")

    def synchronize(self) -> None:
        assert self.stream is not None
        self.device.write(f"await {self.stream.name}")
        assert self.device.finished.wait(10)


@dataclass
class FakeStream:
    device: "FakeDevice"
    name: str

    def record_event(self) -> FakeEvent:
        self.device.write(f"record {self.name}")
        return FakeEvent(self.device, self)

    def wait_event(self, event: FakeEvent) -> None:
        assert event.stream is not None
        self.device.write(f"{self.name} after {event.stream.name}")

    def wait_stream(self, other: "FakeStream") -> None:
        pass


@dataclass
class FakeDevice:
    """Threads that wait for the device are held until the test sets `finished`."""

    log: list[tuple[str, str]] = field(default_factory=list)  # thread and what it did
    finished: threading.Event = field(default_factory=threading.Event)
    error: RuntimeError | None = None  # raised by a synchronisation
    streams: int = 0
    emptied: int = 0  # how often the cache was emptied

    def write(self, what: str) -> None:
        self.log.append((threading.current_thread().name, what))

    def by(self, thread: str) -> list[str]:
        return [what for name, what in self.log if name == thread]

    def stream(self, _: Any) -> FakeStream:
        self.streams += 1
        return FakeStream(self, "compute" if self.streams == 1 else "copies")

    def synchronize(self, _: Any) -> None:
        if self.error is not None:
            raise self.error

    def empty_cache(self) -> None:
        self.emptied += 1


@contextlib.contextmanager
def use(stream: FakeStream) -> Iterator[None]:
    yield


def empty(numbers: int) -> Tensor:
    return torch.full((numbers,), torch.nan)


def install(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """Replaces torch.cuda. The device has finished everything from the start."""
    device = FakeDevice()
    device.finished.set()
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "Stream", device.stream)
    monkeypatch.setattr(cuda, "current_stream", device.stream)
    monkeypatch.setattr(cuda, "Event", lambda *, blocking: FakeEvent(device))
    monkeypatch.setattr(cuda, "stream", use)
    monkeypatch.setattr(cuda, "synchronize", device.synchronize)
    monkeypatch.setattr(cuda, "empty_cache", device.empty_cache)
    monkeypatch.setattr(cuda_passes, "empty_pinned", empty)
    return device
