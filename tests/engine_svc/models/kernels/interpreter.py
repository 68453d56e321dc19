"""Runs Triton kernels on the CPU, in Triton's interpreter. Tests import it before any kernel."""

import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

TORCH_TYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8e4nv": torch.float8_e4m3fn,
}
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}

patch_lang_tensor = interpreter._patch_lang_tensor
create_dot = interpreter.InterpreterBuilder.create_dot


def patch_lang_tensor_for_numpy(tensor: Any, scope: Any) -> None:
    """Triton 3.6 has scalars as arrays of one number, which NumPy from 2.4 on does not take for the bound of a loop."""
    patch_lang_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda scalar: int(scalar.handle.data.item()))


def convert_float(values: Any, source: Any, target: Any, rounding: Any) -> Any:
    """Rounds to the nearest, like a GPU. Triton 3.6 cuts off what bfloat16 does not hold, and its FP8 is wrong where
    rounding up needs the next exponent. Numbers are bits, in the integers of NumPy that are as wide."""
    own, other = TORCH_TYPES[source.name], TORCH_TYPES[target.name]
    bits = torch.from_numpy(np.array(values)).view(INTEGERS[own.itemsize])
    converted = bits.view(own).to(other).view(INTEGERS[other.itemsize]).numpy()
    return converted.view(f"uint{8 * other.itemsize}")


def dot_of_bfloat16_too(builder: Any, one: Any, other: Any, *rest: Any) -> Any:
    """Triton 3.6 multiplies the bits of bfloat16 as if they were integers."""
    return create_dot(builder, widened(one), widened(other), *rest)


def widened(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


prepared: set[str] = set()


def call_from_a_kernel(function: Any, *arguments: Any, **options: Any) -> Any:
    """Triton prepares its language anew for each call, which takes nearly all of the time. The launch has done it for
    the module of the kernel, and once is enough for those of Triton."""
    module = function.fn.__module__
    if module.startswith("triton.") and module not in prepared:
        prepared.add(module)
        interpreter._patch_lang(function.fn)
    return function.rewrite()(*arguments, **options)


interpreter._patch_lang_tensor = patch_lang_tensor_for_numpy
interpreter.InterpreterBuilder.create_dot = dot_of_bfloat16_too
interpreter.InterpretedFunction.__call__ = call_from_a_kernel
interpreter._convert_float = convert_float
