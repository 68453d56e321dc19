"""Runs forward passes on a GPU so that the device need not wait for Python, and tells what an error of the GPU means
for the process. `TorchBackend` uses it on CUDA.

One stream computes the passes of all threads, one after the other. Each thread has another stream for its copies, so
that it can upload the next pass while the device still computes one of another thread. The kernels of the next pass are
then queued before the previous pass ends. All copies use pinned memory: a copy of other memory would block the thread
until the device has done it. PyTorch keeps pinned memory for reuse, as it keeps that of the device.
"""

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from engine_svc.backends import DeviceLostError
from engine_svc.models.heads.head import HeadOutputs
from engine_svc.rows import Rows
from engine_svc.sequences import Output

Inputs = TypeVar("Inputs")


class CudaPasses:
    """`run` may be called by several threads at once."""

    def __init__(self, device: torch.device) -> None:
        self.stream = new_stream(device)  # computes
        # The weights are copied on the current stream.
        self.stream.wait_stream(torch.cuda.current_stream(device))
        self._device = device
        self._launching = threading.Lock()
        self._thread = threading.local()

    def run(self, upload: Callable[[], Inputs], compute: Callable[[Inputs], HeadOutputs]) -> Mapping[Output, Rows]:
        """`upload` starts copies from pinned memory. `compute` starts kernels. Neither may wait for the device."""
        copies = self._copy_stream()
        with torch.cuda.stream(copies):
            # Their memory is reused on this stream once the function returns, when the device is done with it.
            inputs = upload()
            uploaded = copies.record_event()
        # The lock keeps passes apart on the stream: they share the static memory of CUDA graphs.
        with self._launching, torch.cuda.stream(self.stream):
            self.stream.wait_event(uploaded)
            outputs = compute(inputs)
            computed = self.stream.record_event()
        with torch.cuda.stream(copies):
            copies.wait_event(computed)
            host = empty_pinned(outputs.flat.numel())
            host.copy_(outputs.flat, non_blocking=True)
            # `blocking` lets the thread sleep; it would keep a core busy otherwise.
            downloaded = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            downloaded.record(copies)
        downloaded.synchronize()  # without the GIL
        return outputs.split(host.numpy())

    def _copy_stream(self) -> torch.cuda.Stream:
        if not hasattr(self._thread, "copies"):
            self._thread.copies = new_stream(self._device)
        copies: torch.cuda.Stream = self._thread.copies
        return copies


def new_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def empty_pinned(numbers: int) -> Tensor:
    return torch.empty(numbers, dtype=torch.float32, pin_memory=True)


def is_out_of_memory(error: Exception) -> bool:
    """PyTorch's allocator raises an exception of its own. CUDA, Triton and cuBLAS only say it in the message."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error)
        for words in ("CUDA error: out of memory", "[CUDA]: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def check_device(device: torch.device, cause: Exception) -> None:
    """Waits for everything that was started on the device. Raises DeviceLostError, with `cause` as the reason, if the
    device answers with an error. After an illegal memory access, a failed assertion in a kernel or an ECC error, all
    calls of the process fail; after other errors, such as wrong arguments of a kernel, they do not."""
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise DeviceLostError(f"{device} can no longer be used: {first_line(error)}") from cause


def first_line(error: Exception) -> str:
    """Without CUDA's advice on debugging."""
    return str(error).partition("\n")[0]
