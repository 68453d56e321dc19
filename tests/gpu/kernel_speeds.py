"""The speed of the engine's own kernels at the sizes of a full batch of 500-token texts: row-wise kernels against
the card's copy bandwidth, and attention beside the kernel that models get. Part of the step `ceilings`."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine_svc.device import FP8
from engine_svc.models.activations import Activation
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.norms import LayerNorm, RMSNorm
from tests.engine_svc.models.layouts import make_layout
from tests.gpu.attention_kernels import find_kernels
from tests.gpu.clock import measure_device_seconds
from tests.gpu.record import read_rows
from tests.gpu.running import Task
from tests.gpu.shapes import ModelShape, shapes

SECONDS, SECONDS_DRY = 0.1, 0.0
ROWS_DRY = 4
# Rows of one sequence of 5 tokens, where a launch takes longer than the work.
SHORT_ROWS = 5
LENGTHS, LENGTHS_DRY = ([500] * 32, [5] * 1024), ([5] * 4,)


@dataclass(frozen=True)
class Case:
    name: str
    moved: float  # bytes read and written for each row
    run: Callable[[], object]


def run(task: Task) -> None:
    if importlib.util.find_spec("triton") is None:
        task.record.note("no speeds of our kernels: Triton is not installed")
        return
    if task.device == "cpu":
        import tests.engine_svc.models.kernels.interpreter  # noqa: F401
    decoder, encoder = shapes(is_dry=task.is_dry)[:2]
    for rows in (ROWS_DRY,) if task.is_dry else (sum(LENGTHS[0]), SHORT_ROWS):
        for shape, make_cases in ((decoder, decoder_cases), (encoder, encoder_cases)):
            task.attempt(shape.name, partial(measure_rows, task, shape, rows, make_cases))
    for shape in shapes(is_dry=task.is_dry):
        for lengths in LENGTHS_DRY if task.is_dry else LENGTHS:
            task.attempt(f"attention of {shape.name}", partial(measure_attention, task, shape, lengths))


@torch.inference_mode()
def measure_rows(
    task: Task, shape: ModelShape, rows: int, make_cases: Callable[[Task, ModelShape, int], Sequence[Case]]
) -> None:
    copy = next((row["gb_s"] for row in read_rows(task.record.folder, "ceilings") if row["what"] == "copy"), None)
    for case in make_cases(task, shape, rows):
        seconds = measure_device_seconds(case.run, task.device, SECONDS_DRY if task.is_dry else SECONDS)
        gb_s = case.moved * rows / seconds / 1e9
        share = {"share_of_copy": gb_s / copy} if copy else {}
        task.record.add(
            what="kernel", model=shape.name, kernel=case.name, rows=rows, us=1e6 * seconds, gb_s=gb_s, **share
        )


def decoder_cases(task: Task, shape: ModelShape, rows: int) -> Sequence[Case]:
    from engine_svc.models.kernels.gated import activate_gate, activate_gate_to_float8
    from engine_svc.models.kernels.norms import add_and_normalize
    from engine_svc.models.kernels.quantize import quantize_to_float8_by_kernel
    from engine_svc.models.kernels.rotary import rotate_in_place

    width, inner, head = shape.config["hidden_size"], shape.config["intermediate_size"], shape.head_dim
    heads, num_kv_heads = shape.config["num_attention_heads"], shape.config["num_key_value_heads"]
    draw = partial(random_rows, task, shape, rows)
    hidden, update, gate_up = draw(width), draw(width), draw(2 * inner)
    norm = RMSNorm(torch.ones(width, device=task.device), 1e-6)
    qk_norm = RMSNorm(torch.ones(heads + num_kv_heads, head, device=task.device), 1e-6)
    query_key = draw((heads + 2 * num_kv_heads) * head).view(rows, -1, head)[:, : heads + num_kv_heads]
    rotation = (draw(head // 2).view(rows, 1, -1), draw(head // 2).view(rows, 1, -1))
    rotated = 2.0 * 2 * (heads + num_kv_heads) * head + 2 * head
    cases = [
        Case("sum and RMS norm", 2.0 * 4 * width, lambda: add_and_normalize(hidden, norm, update, as_float8=False)),
        Case("norm of heads and rotary", rotated, lambda: rotate_in_place(query_key, rotation, qk_norm)),
        Case("SwiGLU", 2.0 * 3 * inner, lambda: activate_gate(gate_up, Activation.SILU)),
    ]
    if task.device == "cuda" and torch.cuda.get_device_capability() < FP8:
        return cases
    return [
        *cases,
        Case("rows to FP8", 3.0 * width, lambda: quantize_to_float8_by_kernel(hidden)),
        Case("sum and RMS norm to FP8", 7.0 * width, lambda: add_and_normalize(hidden, norm, update, as_float8=True)),
        Case("SwiGLU to FP8", 5.0 * inner, lambda: activate_gate_to_float8(gate_up, Activation.SILU)),
    ]


def encoder_cases(task: Task, shape: ModelShape, rows: int) -> Sequence[Case]:
    from engine_svc.models.kernels.norms import normalize

    width = shape.config["hidden_size"]
    hidden, update = random_rows(task, shape, rows, width), random_rows(task, shape, rows, width)
    norm = LayerNorm(torch.ones_like(hidden[0]), torch.zeros_like(hidden[0]), 1e-12)
    return [Case("layer norm of a sum", 2.0 * 3 * width, lambda: normalize(hidden, norm, update))]


def random_rows(task: Task, shape: ModelShape, rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, device=task.device).to(getattr(torch, shape.dtype))


@torch.inference_mode()
def measure_attention(task: Task, shape: ModelShape, lengths: Sequence[int]) -> None:
    heads, head_dim = int(shape.config["num_attention_heads"]), shape.head_dim
    num_kv_heads = int(shape.config.get("num_key_value_heads", heads))
    pattern = AttentionPattern(window_right=0) if shape.is_decoder else AttentionPattern()
    device, dtype = torch.device(task.device), getattr(torch, shape.dtype)
    projected = random_rows(task, shape, sum(lengths), (heads + 2 * num_kv_heads) * head_dim).view(
        sum(lengths), -1, head_dim
    )
    query, key, value = torch.split(projected, [heads, num_kv_heads, num_kv_heads], 1)
    layout, flops = make_layout(lengths, device), shape.attention_flops(lengths) / shape.layers
    for name, attends in find_kernels(device, dtype, head_dim, pattern).items():
        run_once = partial(attends, query, key, value, layout, pattern)
        seconds = measure_device_seconds(run_once, task.device, SECONDS_DRY if task.is_dry else SECONDS)
        task.record.add(
            what="attention",
            model=shape.name,
            kernel=name,
            sequences=len(lengths),
            tokens=lengths[0],
            us=1e6 * seconds,
            tflops=flops / seconds / 1e12,
        )
