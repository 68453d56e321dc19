"""NVIDIA GPUs of the table in `engine_svc.device`, and a fake torch that reports some of them."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from engine_svc.device import Device

V100 = Device("cuda", 0, "Tesla V100-SXM2-16GB", (7, 0), 16 << 30)
T4 = Device("cuda", 0, "Tesla T4", (7, 5), 15 << 30)
A100 = Device("cuda", 0, "NVIDIA A100-SXM4-80GB", (8, 0), 80 << 30)
A10G = Device("cuda", 0, "NVIDIA A10G", (8, 6), 24 << 30)
L4 = Device("cuda", 0, "NVIDIA L4", (8, 9), 22 << 30)
H100 = Device("cuda", 0, "NVIDIA H100 80GB HBM3", (9, 0), 80 << 30)
H200 = Device("cuda", 0, "NVIDIA H200", (9, 0), 140 << 30)
B200 = Device("cuda", 0, "NVIDIA B200", (10, 0), 180 << 30)


def install_gpus(
    monkeypatch: pytest.MonkeyPatch, *gpus: Device, free_bytes: int | None = None, built_for: Sequence[str] = ()
) -> None:
    """All memory is free unless `free_bytes` says how much. `built_for` are the architectures that torch is built for,
    such as sm_90."""

    def properties(index: int) -> SimpleNamespace:
        gpu = gpus[index]
        major, minor = gpu.capability
        return SimpleNamespace(name=gpu.name, major=major, minor=minor, total_memory=gpu.memory_bytes)

    def memory(index: int) -> tuple[int, int]:
        total = gpus[index].memory_bytes
        return total if free_bytes is None else free_bytes, total

    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(built_for))
