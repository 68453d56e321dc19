"""Compiles the kernels for a GPU that is not there: `python -m ... COMPUTE_CAPABILITY`. Prints how many row-wise
kernels it compiled, and the resources of each variant of the attention kernel. Fails if a row-wise kernel needs more
registers than a thread has. This is a process of its own, because that of the tests has Triton's interpreter switched
on.
"""

import json
import re
import subprocess
import sys
import tempfile
from typing import Any
from unittest import mock

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engine_svc.models.kernels.attention import attend_kernel, choose_block_sizes
from engine_svc.models.kernels.gated import COLUMNS_MAX, gate_kernel
from engine_svc.models.kernels.launch import choose_tile
from engine_svc.models.kernels.norms import normalize_kernel
from engine_svc.models.kernels.quantize import BYTES_PER_PROGRAM, dequantize_kernel, quantize_kernel
from engine_svc.models.kernels.rotary import rotate_kernel

POINTER = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
HEAD_DIMS = (32, 72, 256)
WINDOW = "causal window, softcap"
OPTIONS: dict[str, dict[str, str]] = {
    "all": {},
    WINDOW: {"softcap": "fp32", "window_left": "i32", "window_right": "i32"},
    "bias": {"bias": "*fp32", "num_distances": "i32"},
    "relative bias": {"c2p": "dtype", "p2c": "dtype", "buckets": "*i64", "num_distances": "i32"},
}
OPTIONAL = ("softcap", "window_left", "window_right", "bias", "c2p", "p2c", "buckets")
POINTERS_TO_INTEGERS = ("cu_seqlens_q", "cu_seqlens")

FLOAT8 = "*fp8e4nv"


def read_resources(compiled: Any) -> dict[str, int]:
    """Bytes: "shared" memory of a block, and the "stack" of a thread, where it keeps what its registers cannot hold."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [stack] = re.findall(r"STACK:(\d+)", usage)
    return {"shared": compiled.metadata.shared, "stack": int(stack)}


def compile_attention(capability: int, dtype: torch.dtype, head_dim: int, options: dict[str, str]) -> dict[str, int]:
    with mock.patch.object(torch.cuda, "get_device_capability", return_value=divmod(capability, 10)):
        blocks = choose_block_sizes(head_dim, dtype, torch.device("cuda"))
    constants: dict[str, Any] = {
        **{name: None for name in OPTIONAL if name not in options},
        "heads_per_kv_head": 4,
        "head_dim": head_dim,
        "head_block": blocks.head,
        "row_block": blocks.rows,
        "key_block": blocks.keys,
    }
    signature = {name: triton_type(name, dtype, options) for name in attend_kernel.arg_names}
    signature |= dict.fromkeys(constants, "constexpr")
    # The sizes of a model are multiples of 16, which decides how wide the loads are.
    attrs = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(attend_kernel.arg_names)
        if name in ("query", "key", "value", "result") or (name.endswith(("_row", "_head")) and name != "bias_head")
    }
    compiled = triton.compile(
        ASTSource(attend_kernel, signature, constants, attrs),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": 4, "num_stages": blocks.stages},
    )
    return read_resources(compiled)


def triton_type(name: str, dtype: torch.dtype, options: dict[str, str]) -> str:
    if name in ("query", "key", "value", "result") or options.get(name) == "dtype":
        return POINTER[dtype]
    if name in POINTERS_TO_INTEGERS:
        return "*i32"
    return options.get(name, "fp32" if name == "scale" else "i32")


def compile_attention_variants(capability: int) -> dict[str, dict[str, int]]:
    short = torch.bfloat16 if capability >= 80 else torch.float16
    # Each takes a second: all patterns for one size, and all sizes for one pattern.
    cases = [(short, 64, name) for name in OPTIONS] + [(short, head_dim, WINDOW) for head_dim in HEAD_DIMS]
    cases += [(torch.float32, 64, "relative bias"), (torch.float32, 72, WINDOW), (torch.float32, 256, WINDOW)]
    return {
        f"{dtype}, heads of {head_dim}, {name}": compile_attention(capability, dtype, head_dim, OPTIONS[name])
        for dtype, head_dim, name in cases
    }


def compile_kernel(capability: int, kernel: Any, warps: int, types: dict[str, str], **constants: Any) -> None:
    """`types` are those of the arguments that are not constants."""
    names = list(kernel.arg_names)
    assert set(names) == types.keys() | constants.keys()
    signature = {name: types.get(name, "constexpr") for name in names}
    # Memory that torch allocates is aligned, which decides how wide the loads are.
    attrs = {(names.index(name),): [["tt.divisibility", 16]] for name, kind in types.items() if kind.startswith("*")}
    source = ASTSource(kernel, signature, constants, attrs)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    assert read_resources(compiled)["stack"] == 0, (kernel, constants)


def compile_norms(capability: int, short: str, width: int) -> int:
    tile = choose_tile(width)
    sizes = {"WIDTH": width, "ROWS": tile.rows, "COLUMNS": tile.columns}
    hidden = {"hidden": short, "update": short, "rows": "i32", "epsilon": "fp32"}
    rms: dict[str, Any] = {"bias": None, "IS_RMS": True, "KEEPS_SUM": True, **sizes}
    layer: dict[str, Any] = {"IS_RMS": False, "KEEPS_SUM": False, "scales": None, **sizes}
    types = {**hidden, "weight": "*fp32", "result": short}
    compile_kernel(capability, normalize_kernel, tile.warps, types, **rms, scales=None)
    types = {**hidden, "weight": short, "bias": short, "result": short}
    compile_kernel(capability, normalize_kernel, tile.warps, types, **layer)
    if capability < 89:
        return 2
    types = {**hidden, "weight": "*fp32", "result": FLOAT8, "scales": "*fp32"}
    compile_kernel(capability, normalize_kernel, tile.warps, types, **rms)
    types = {"inputs": short, "values": FLOAT8, "scales": "*fp32", "rows": "i32"}
    compile_kernel(capability, quantize_kernel, tile.warps, types, **sizes)
    return 4


def compile_rotary(capability: int, short: str) -> int:
    half, rest = 64, 32
    tile = choose_tile(half)
    sizes = {"ROW_STRIDE": 48 * 160, "ROW_HEADS": 40, "HEAD_DIM": 2 * half + rest, "HALF": half, "REST": rest}
    tiles = {"HEADS": tile.rows, "COLUMNS": tile.columns, "REST_COLUMNS": rest}
    types = {"heads": short, "cosines": short, "sines": short, "count": "i32", "epsilon": "fp32"}
    compile_kernel(capability, rotate_kernel, tile.warps, {**types, "weight": "*fp32"}, **sizes, **tiles)
    compile_kernel(capability, rotate_kernel, tile.warps, types, **sizes, **tiles, weight=None)
    return 2


def compile_gates(capability: int, short: str) -> int:
    width = 12288
    types = {"gate_up": short, "result": short, "rows": "i32"}
    tile = choose_tile(COLUMNS_MAX)
    sizes = {"WIDTH": width, "ROWS": tile.rows, "COLUMNS": tile.columns}
    activations = ("silu", "gelu", "gelu_tanh", "relu", "tanh", "none")
    for activation in activations:
        compile_kernel(capability, gate_kernel, tile.warps, types, **sizes, scales=None, ACTIVATION=activation)
    if capability < 89:
        return len(activations)
    types = {"gate_up": short, "result": FLOAT8, "scales": "*fp32", "rows": "i32"}
    tile = choose_tile(width)
    sizes = {"WIDTH": width, "ROWS": tile.rows, "COLUMNS": tile.columns}
    compile_kernel(capability, gate_kernel, tile.warps, types, **sizes, ACTIVATION="silu")
    return len(activations) + 1


def compile_dequantization(capability: int, short: str) -> int:
    types = {"packed": "*u8", "block_scales": "*u8", "scales": "*fp32", "result": short, "count": "i32"}
    compile_kernel(capability, dequantize_kernel, 4, types, WIDTH=2048, SIZE=BYTES_PER_PROGRAM)
    return 1


def main() -> None:
    capability = int(sys.argv[1])
    short = "*bf16" if capability >= 80 else "*fp16"
    norms = compile_norms(capability, short, 4096) + compile_norms(capability, short, 384)
    others = compile_rotary(capability, short) + compile_gates(capability, short)
    rows = norms + others + compile_dequantization(capability, short)
    print(json.dumps({"rows": rows, "attention": compile_attention_variants(capability)}))


if __name__ == "__main__":
    main()
