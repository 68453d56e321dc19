"""Passes on a GPU, with fake streams and events: the order of copies and kernels, two passes in flight, and errors."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from engine_svc.backends import DeviceLostError, OutOfMemoryError
from engine_svc.backends.cuda_passes import CudaPasses
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.heads.head import HeadOutputs
from engine_svc.models.model import Model
from engine_svc.rows import Rows
from engine_svc.sequences import Output
from heddle.checkpoint import Checkpoint
from tests.checkpoints import write_bert, write_tokenizer
from tests.engine_svc.backends import fake_cuda
from tests.engine_svc.backends.fake_cuda import FakeDevice
from tests.engine_svc.gpus import H100, install_gpus
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed, run_each

CPU = torch.device("cpu")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    return fake_cuda.install(monkeypatch)


def run(passes: CudaPasses, number: float, device: FakeDevice) -> list[float]:
    def upload() -> float:
        device.write("upload")
        return number

    def compute(uploaded: float) -> HeadOutputs:
        device.write("launch")
        time.sleep(0.002)  # lets another thread in, unless it is kept out
        device.write("launched")
        return HeadOutputs(torch.tensor([uploaded, 2 * uploaded]), lambda host: {Output.VECTOR: Rows(host)})

    return passes.run(upload, compute)[Output.VECTOR].values.tolist()  # type: ignore[no-any-return]


def test_a_pass_computes_after_its_upload_and_downloads_after_that(device: FakeDevice) -> None:
    assert run(CudaPasses(CPU), 3, device) == [3, 6]
    assert [what for _, what in device.log] == [
        *("upload", "record copies"),
        *("compute after copies", "launch", "launched", "record compute"),
        *("copies after compute", "record copies", "await copies"),
    ]


def test_the_next_pass_is_queued_while_the_device_computes_the_one_before(device: FakeDevice) -> None:
    device.finished.clear()
    passes = CudaPasses(CPU)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run, passes, number, device) for number in (1, 2)]
        end = time.monotonic() + 10
        while [what for _, what in device.log].count("await copies") < 2 and time.monotonic() < end:
            time.sleep(0.002)
        assert [what for _, what in device.log].count("launched") == 2
        assert not any(each.done() for each in both)
        device.finished.set()
        assert [each.result() for each in both] == [[1, 2], [2, 4]]


def test_passes_of_many_threads_are_not_mixed_up_on_the_compute_stream(device: FakeDevice) -> None:
    passes = CudaPasses(CPU)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda number: run(passes, number, device), range(40)))
    assert results == [[number, 2 * number] for number in range(40)]
    launches = [(thread, what) for thread, what in device.log if what.startswith("launch")]
    assert len(launches) == 80
    for begun, ended in zip(launches[::2], launches[1::2], strict=True):
        assert (begun[1], ended[1], ended[0]) == ("launch", "launched", begun[0])


def test_each_thread_keeps_its_stream(device: FakeDevice) -> None:
    passes = CudaPasses(CPU)
    before = device.streams
    for number in range(3):
        run(passes, number, device)
    thread = threading.Thread(target=run, args=(passes, 1, device))
    thread.start()
    thread.join(10)
    assert device.streams == before + 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder: Path = tmp_path_factory.mktemp("bert")
    write_bert(folder)
    write_tokenizer(folder)
    return Checkpoint.read(folder)


@pytest.fixture
def backend(checkpoint: Checkpoint, device: FakeDevice) -> TorchBackend:
    """Runs the code for a GPU on the CPU."""
    backend = TorchBackend(checkpoint, dtype="float32", device="cpu")
    backend._passes = CudaPasses(CPU)
    return backend


def test_the_model_is_loaded_with_its_own_gpu_as_the_current_one(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels of Triton quantize weights while they are loaded."""
    install_gpus(monkeypatch, H100, H100)
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)

    def load(*_: object, device: torch.device, **__: object) -> None:
        assert current == [device] == [torch.device("cuda", 1)]
        raise InterruptedError

    monkeypatch.setattr(Model, "load", load)
    with pytest.raises(InterruptedError):
        TorchBackend(checkpoint, device="cuda:1")


BATCH = packed([TokenSequence(np.arange(5, 5 + length, dtype="<u4").tobytes()) for length in (9, 3, 3, 14)])


def test_vectors_by_the_code_for_a_gpu_are_those_of_the_cpu(backend: TorchBackend, checkpoint: Checkpoint) -> None:
    expected = run_each(TorchBackend(checkpoint, dtype="float32", device="cpu"), BATCH)
    for ours, theirs in zip(run_each(backend, BATCH), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def fail(backend: TorchBackend, error: Exception) -> None:
    def raise_it(*_: object) -> None:
        raise error

    object.__setattr__(backend._model, "transformer", raise_it)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_out_of_memory_has_its_own_error_and_empties_the_cache(
    backend: TorchBackend, device: FakeDevice, error: Exception
) -> None:
    fail(backend, error)
    with pytest.raises(OutOfMemoryError):
        run_each(backend, BATCH)
    assert device.emptied == 1


def test_an_error_that_leaves_the_device_unusable_is_a_lost_device(backend: TorchBackend, device: FakeDevice) -> None:
    fail(backend, RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"))
    device.error = RuntimeError("CUDA error: an illegal memory access was encountered\nFor debugging consider")
    with pytest.raises(DeviceLostError, match=r"an illegal memory access was encountered$"):
        run_each(backend, BATCH)


def test_an_error_that_leaves_the_device_usable_is_raised_as_it_is(backend: TorchBackend, device: FakeDevice) -> None:
    fail(backend, RuntimeError("CUDA error: invalid configuration argument"))
    with pytest.raises(RuntimeError, match="invalid configuration argument"):
        run_each(backend, BATCH)
    assert not device.emptied
