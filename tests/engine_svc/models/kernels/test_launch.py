"""Which devices run the kernels."""

import importlib.util

import pytest
import torch
from triton.runtime import driver

from engine_svc.models.kernels.launch import runs_kernels, triton_works

CUDA = torch.device("cuda", 0)


class Driver:
    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def get_current_device(self) -> int:
        if self._error is not None:
            raise self._error
        return 0


@pytest.fixture(autouse=True)
def _nothing_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine_svc.models.kernels.launch.triton_works", triton_works.__wrapped__)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(driver, "_active", Driver())


def test_kernels_run_on_turing_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs_kernels.__wrapped__(CUDA)
    assert not runs_kernels.__wrapped__(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    assert not runs_kernels.__wrapped__(CUDA)


def test_kernels_do_not_run_where_triton_finds_no_compiler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver, "_active", Driver(RuntimeError("Failed to find C compiler")))
    assert not runs_kernels.__wrapped__(CUDA)
    assert "Failed to find C compiler" in caplog.text


def test_kernels_do_not_run_without_triton(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not runs_kernels.__wrapped__(CUDA)
    assert "not installed" in caplog.text
