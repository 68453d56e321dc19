"""Compiles the attention kernel for a GPU that is not there: `python -m ... COMPUTE_CAPABILITY`. Prints the shared
memory that each variant takes. A process of its own, because Triton's interpreter is switched on in that of the tests.
"""

import itertools
import json
import sys
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engine_svc.models.kernels.attention import attend_kernel, blocks_for

POINTER = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
HEAD_DIMS = (32, 72, 256)
WINDOW = "causal window, softcap"
OPTIONS: dict[str, dict[str, str]] = {
    "all": {},
    WINDOW: {"softcap": "fp32", "behind": "i32", "ahead": "i32"},
    "bias": {"bias": "*fp32", "distances": "i32"},
    "places": {"of_queries": "dtype", "of_keys": "dtype", "of_distance": "*i32", "distances": "i32"},
}
OPTIONAL = ("softcap", "behind", "ahead", "bias", "of_queries", "of_keys", "of_distance")
POINTERS_TO_INTEGERS = ("cu_rows", "cu_seqlens")


def compile_kernel(capability: int, dtype: torch.dtype, head_dim: int, options: dict[str, str]) -> int:
    """Bytes of shared memory."""
    with mock.patch.object(torch.cuda, "get_device_capability", return_value=divmod(capability, 10)):
        blocks = blocks_for(head_dim, dtype, torch.device("cuda"))
    constants: dict[str, Any] = {
        **{name: None for name in OPTIONAL if name not in options},
        "groups": 4,
        "head_dim": head_dim,
        "head_block": blocks.head,
        "row_block": blocks.rows,
        "key_block": blocks.keys,
    }
    signature = {name: type_of(name, dtype, options) for name in attend_kernel.arg_names}
    signature |= dict.fromkeys(constants, "constexpr")
    # As of a model whose sizes are multiples of 16, which decides how wide the loads are.
    attrs = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(attend_kernel.arg_names)
        if name in ("query", "key", "value", "result") or (name.endswith(("_row", "_head")) and name != "product_head")
    }
    compiled = triton.compile(
        ASTSource(attend_kernel, signature, constants, attrs),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": 4, "num_stages": blocks.stages},
    )
    assert compiled.asm["cubin"]
    return int(compiled.metadata.shared)


def type_of(name: str, dtype: torch.dtype, options: dict[str, str]) -> str:
    if name in ("query", "key", "value", "result") or options.get(name) == "dtype":
        return POINTER[dtype]
    if name in POINTERS_TO_INTEGERS:
        return "*i32"
    return options.get(name, "fp32" if name == "scale" else "i32")


def main() -> None:
    capability = int(sys.argv[1])
    dtypes = [torch.float32, torch.bfloat16 if capability >= 80 else torch.float16]
    # Each takes seconds: all patterns for one size, and all sizes for one pattern.
    cases = [*((64, name) for name in OPTIONS), *((head_dim, WINDOW) for head_dim in HEAD_DIMS)]
    shared = {
        f"{dtype}, heads of {head_dim}, {name}": compile_kernel(capability, dtype, head_dim, OPTIONS[name])
        for dtype, (head_dim, name) in itertools.product(dtypes, cases)
    }
    print(json.dumps(shared))


if __name__ == "__main__":
    main()
