"""A pod takes its device from torch, and a missing device is an error of one line."""

from dataclasses import replace

import pytest
import torch

from engine_svc.device import CPU, find_device
from engine_svc.settings import EngineSettings
from heddle.rpc.settings import ConfigurationError
from tests.engine_svc.gpus import L4, T4, install_gpus


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_without_a_gpu_a_pod_computes_on_the_cpu(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    install_gpus(monkeypatch)
    assert find_device(wanted) == CPU


@pytest.mark.parametrize(
    ("wanted", "device"), [("auto", T4), ("cuda", T4), ("cuda:0", T4), ("cuda:1", replace(L4, index=1)), ("cpu", CPU)]
)
def test_a_gpu_is_described_by_torch(monkeypatch: pytest.MonkeyPatch, wanted: str, device: object) -> None:
    install_gpus(monkeypatch, T4, L4)
    assert find_device(wanted) == device


@pytest.mark.parametrize(("gpus", "seen"), [(0, "no GPU"), (1, "1 GPU"), (2, "2 GPUs")])
def test_a_missing_gpu_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch, gpus: int, seen: str) -> None:
    install_gpus(monkeypatch, *[T4] * gpus)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ConfigurationError) as caught:
        find_device("cuda:3")
    assert str(caught.value) == f"device cuda:3: PyTorch sees {seen}"


def test_a_torch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install_gpus(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigurationError, match=r"^device cuda: PyTorch \S+ is built without CUDA$"):
        find_device("cuda")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", ""])
def test_a_device_of_another_form_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N, not"):
        EngineSettings(device=device)
