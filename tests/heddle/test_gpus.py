"""The GPUs that a process may use: those of NVML, filtered by CUDA_VISIBLE_DEVICES, each under a name of its own."""

import ctypes
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from heddle import gpus
from heddle.gpus import NVML, VARIABLE, visible_gpus

FIRST, SECOND = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-fb34a41c"
FIRST_SLICE, SECOND_SLICE = "MIG-c6f1e4b2-1b9b-5a0f-8f7d-000000000001", "MIG-GPU-8932f937-d72c-4106/1/0"


class Nvml(SimpleNamespace):
    """The functions of the library that are called. `failing` names the one that fails."""

    def __init__(self, count: int, failing: str = "") -> None:
        def set_count(place: Any) -> int:
            assert self.is_open
            place._obj.value = count
            return int(failing == "nvmlDeviceGetCount_v2")

        def open_or_close(*, is_open: bool) -> int:
            self.is_open = is_open
            return 0

        super().__init__(
            is_open=False,
            nvmlInit_v2=(lambda: 9) if failing == "nvmlInit_v2" else partial(open_or_close, is_open=True),
            nvmlDeviceGetCount_v2=set_count,
            nvmlShutdown=partial(open_or_close, is_open=False),
        )


def install(monkeypatch: pytest.MonkeyPatch, nvml: Nvml | None) -> None:
    def load(name: str) -> Nvml:
        assert name == NVML
        if nvml is None:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return nvml

    fakes = {name: getattr(ctypes, name) for name in ("c_uint", "byref")}
    monkeypatch.setattr(gpus, "ctypes", SimpleNamespace(CDLL=load, **fakes))


@pytest.mark.parametrize(
    ("stated", "seen"),
    [
        (None, ("0", "1", "2", "3")),
        ("2", ("2",)),
        ("3,1", ("3", "1")),
        (" 3 , 1 ", ("3", "1")),
        ("0,7,1", ("0",)),
        ("1,-1,2", ("1",)),
        ("0,0", ()),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        (f"{FIRST},{SECOND}", (FIRST, SECOND)),
        (f"{FIRST_SLICE},{SECOND_SLICE}", (FIRST_SLICE, SECOND_SLICE)),
    ],
)
def test_the_variable_selects_and_orders_gpus(
    monkeypatch: pytest.MonkeyPatch, stated: str | None, seen: tuple[str, ...]
) -> None:
    install(monkeypatch, Nvml(4))
    assert visible_gpus({} if stated is None else {VARIABLE: stated}) == seen


@pytest.mark.parametrize("nvml", [None, Nvml(0), Nvml(4, "nvmlInit_v2"), Nvml(4, "nvmlDeviceGetCount_v2")])
@pytest.mark.parametrize("stated", [None, "0", FIRST])
def test_without_a_driver_there_are_none(
    monkeypatch: pytest.MonkeyPatch, nvml: Nvml | None, stated: str | None
) -> None:
    install(monkeypatch, nvml)
    assert visible_gpus({} if stated is None else {VARIABLE: stated}) == ()
    assert nvml is None or not nvml.is_open
