"""Tells what an error of PyTorch on a GPU means for the process. `TorchBackend` asks when a pass has failed."""

import torch

from engine_svc.backends.backend import DeviceLostError


def is_out_of_memory(error: Exception) -> bool:
    """PyTorch's allocator has an exception of its own. CUDA, Triton and cuBLAS say it in words only."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error)
        for words in ("CUDA error: out of memory", "[CUDA]: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def check_device(device: torch.device, cause: Exception) -> None:
    """Waits for all that was started on the device. Raises DeviceLostError, with `cause` as the reason, if the device
    answers with an error. After an illegal memory access, a failed assertion in a kernel or an ECC error, all calls of
    the process fail; after other errors, such as wrong arguments of a kernel, they do not."""
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise DeviceLostError(f"{device} can no longer be used: {first_line(error)}") from cause


def first_line(error: Exception) -> str:
    """Without CUDA's advice on debugging."""
    return str(error).partition("\n")[0]
