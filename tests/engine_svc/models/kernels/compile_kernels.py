"""Compiles the row-wise kernels for a GPU that is not there: `python -m ... COMPUTE_CAPABILITY`, and prints how many. A
process of its own, because Triton's interpreter is switched on in that of the tests.
"""

import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engine_svc.models.kernels.gated import gate_kernel, gate_to_float8_kernel
from engine_svc.models.kernels.norms import normalize_kernel
from engine_svc.models.kernels.quantize import quantize_kernel
from engine_svc.models.kernels.rotary import rotate_kernel
from engine_svc.models.kernels.tiles import tile_of

FLOAT8 = "*fp8e4nv"


def compile_kernel(capability: int, kernel: Any, warps: int, types: dict[str, str], **constants: Any) -> None:
    """`types` are those of the arguments that are not constants."""
    names = list(kernel.arg_names)
    assert set(names) == types.keys() | constants.keys()
    signature = {name: types.get(name, "constexpr") for name in names}
    # Memory that torch allocates is aligned, which decides how wide the loads are.
    attrs = {(names.index(name),): [["tt.divisibility", 16]] for name, kind in types.items() if kind.startswith("*")}
    source = ASTSource(kernel, signature, constants, attrs)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    assert compiled.asm["cubin"]


def compile_norms(capability: int, short: str, width: int) -> int:
    tile = tile_of(width)
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
    tile = tile_of(half)
    sizes = {"ROW_STRIDE": 48 * 160, "ROW_HEADS": 40, "HEAD_DIM": 2 * half + rest, "HALF": half, "REST": rest}
    tiles = {"HEADS": tile.rows, "COLUMNS": tile.columns, "REST_COLUMNS": rest}
    types = {"heads": short, "cosines": short, "sines": short, "count": "i32", "epsilon": "fp32"}
    compile_kernel(capability, rotate_kernel, tile.warps, {**types, "weight": "*fp32"}, **sizes, **tiles)
    compile_kernel(capability, rotate_kernel, tile.warps, types, **sizes, **tiles, weight=None)
    return 2


def compile_gates(capability: int, short: str) -> int:
    tile = tile_of(1024)
    sizes = {"WIDTH": 12288, "ROWS": tile.rows, "COLUMNS": tile.columns}
    types = {"gate_up": short, "result": short, "rows": "i32"}
    activations = ("silu", "gelu", "gelu_tanh", "relu", "tanh", "none")
    for activation in activations:
        compile_kernel(capability, gate_kernel, tile.warps, types, **sizes, ACTIVATION=activation)
    if capability < 89:
        return len(activations)
    types = {"gate_up": short, "result": FLOAT8, "scales": "*fp32", "rows": "i32"}
    compile_kernel(capability, gate_to_float8_kernel, tile.warps, types, **sizes, ACTIVATION="silu")
    return len(activations) + 1


def main() -> None:
    capability = int(sys.argv[1])
    short = "*bf16" if capability >= 80 else "*fp16"
    counts = [compile_norms(capability, short, 4096), compile_norms(capability, short, 384)]
    print(sum(counts) + compile_rotary(capability, short) + compile_gates(capability, short))


if __name__ == "__main__":
    main()
