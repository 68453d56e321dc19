"""Cores: those that the process may run on, or the limit of its container. GPUs: those of NVML, filtered by
CUDA_VISIBLE_DEVICES, each with its own name. Memory: what a process keeps is not cleared by the kernel again.
"""

import ctypes
import os
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heddle import machine
from heddle.machine import GPUS_VARIABLE, NVML, core_limit, memory_limit, usable_cores, visible_gpus

FIRST, SECOND = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-fb34a41c"
FIRST_SLICE, SECOND_SLICE = "MIG-c6f1e4b2-1b9b-5a0f-8f7d-000000000001", "MIG-GPU-8932f937-d72c-4106/1/0"

COUNT_PAGES = """
import resource, sys
from heddle.machine import keep_freed_memory
keep_freed_memory(int(sys.argv[1]))
def fill(): [bytearray(4 << 20) for _ in range(3)]
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_without_a_limit_all_allowed_cores_count(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("written", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("nonsense", None), ("100000 0", None)]
)
def test_core_limit_of_a_container_is_read(tmp_path: Path, written: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(written)
    assert core_limit(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("50000", 0.5), ("-1", None)])
def test_core_limit_is_read_from_cgroups_v1_too(tmp_path: Path, quota: str, cores: float | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert core_limit(tmp_path) == cores


@pytest.mark.parametrize(
    ("file", "unlimited"), [("memory.max", "max"), ("memory/memory.limit_in_bytes", str((1 << 63) - 4096))]
)
def test_memory_limit_of_a_container_is_read(tmp_path: Path, file: str, unlimited: str) -> None:
    assert memory_limit(tmp_path) is None
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("2147483648\n")
    assert memory_limit(tmp_path) == 2 << 30
    path.write_text(f"{unlimited}\n")
    assert memory_limit(tmp_path) is None


def test_there_is_always_one_core(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("10000 100000")
    assert usable_cores(tmp_path) == 1


class Nvml(SimpleNamespace):
    """The functions of the library that are used. `failing` names one that fails."""

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
    monkeypatch.setattr(machine, "ctypes", SimpleNamespace(CDLL=load, **fakes))


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
    assert visible_gpus({} if stated is None else {GPUS_VARIABLE: stated}) == seen


@pytest.mark.parametrize("nvml", [None, Nvml(0), Nvml(4, "nvmlInit_v2"), Nvml(4, "nvmlDeviceGetCount_v2")])
@pytest.mark.parametrize("stated", [None, "0", FIRST])
def test_without_a_driver_there_are_none(
    monkeypatch: pytest.MonkeyPatch, nvml: Nvml | None, stated: str | None
) -> None:
    install(monkeypatch, nvml)
    assert visible_gpus({} if stated is None else {GPUS_VARIABLE: stated}) == ()
    assert nvml is None or not nvml.is_open


def new_pages(kept: int) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT_PAGES, str(kept)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_blocks_within_the_limit_need_no_new_pages() -> None:
    assert new_pages(64 << 20) < 1000
    assert new_pages(128 << 10) > 10_000
