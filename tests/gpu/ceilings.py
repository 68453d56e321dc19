"""The card's limits: how fast it copies, and how fast it multiplies matrices of the models' shapes, in each number
format. The engine is compared with these rather than with a data sheet."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.float8 import FLOAT8, private_product, public_product, quantize_to_float8
from tests.gpu import kernel_speeds
from tests.gpu.clock import measure_device_seconds
from tests.gpu.record import Row
from tests.gpu.running import Task
from tests.gpu.shapes import ModelShape, shapes

COPY_BYTES = 4 << 30
COPY_BYTES_DRY = 1 << 20

ROWS = 32 * 500  # of the batches of 500 tokens
ROWS_DRY = 32
SHORT_ROWS = 5  # one sequence of 5 tokens: reading the weights takes all the time

SECONDS, SECONDS_DRY = 0.3, 0.01
# Distinct inputs and weights rotate, as many as have this size together: several times the L2 cache.
TURNS_BYTES, TURNS_BYTES_DRY = 512 << 20, 1 << 16
TURNS_MAX = 64

ERROR_CHARACTERS = 160

Form = Callable[[Tensor, Tensor], Callable[[], object]]  # from inputs and a weight to a call that multiplies them


def run(task: Task) -> None:
    task.attempt("copy", partial(measure_copy, task))
    for shape in shapes(is_dry=task.is_dry):
        dtype = getattr(torch, shape.dtype)
        task.attempt(shape.name, partial(measure_products, task, shape, shape.dtype, dtype, plain))
        task.attempt(shape.name, partial(measure_short, task, shape, shape.dtype, dtype, plain))
    for shape in shapes(is_dry=task.is_dry):
        for name, form in FORMS_OF_FLOAT8.items() if shape.is_decoder else ():  # others are not served in FP8
            try:
                measure_products(task, shape, name, torch.bfloat16, form)
                measure_short(task, shape, name, torch.bfloat16, form)
            except (RuntimeError, AttributeError, TypeError, ValueError) as error:
                task.record.note(f"{shape.name} {name}: not on this device: {str(error)[:ERROR_CHARACTERS]}")
    kernel_speeds.run(task)


def measure_copy(task: Task) -> None:
    size = COPY_BYTES_DRY if task.is_dry else COPY_BYTES
    source = torch.empty(size // 2, dtype=torch.bfloat16, device=task.device).normal_()
    target = torch.empty_like(source)
    seconds = measure_device_seconds(partial(target.copy_, source), task.device, choose_seconds(task))
    task.record.add(what="copy", bytes_read_and_written=2 * size, gb_s=2 * size / seconds / 1e9)


def measure_products(task: Task, shape: ModelShape, name: str, dtype: torch.dtype, form: Form) -> None:
    """Measures each linear of a layer, and adds a row for all four together."""
    rows = ROWS_DRY if task.is_dry else ROWS
    flops = seconds = 0.0
    for linear, outputs, inputs in shape.linears:
        own_flops = 2.0 * rows * outputs * inputs
        own_seconds = time_product(task, (rows, outputs, inputs), dtype, form)
        flops, seconds = flops + own_flops, seconds + own_seconds
        task.record.add(
            shown=False,
            what="product",
            model=shape.name,
            format=name,
            linear=linear,
            rows=rows,
            outputs=outputs,
            inputs=inputs,
            tflops=own_flops / own_seconds / 1e12,
        )
    task.record.add(what="layer", model=shape.name, format=name, rows=rows, tflops=flops / seconds / 1e12)


def measure_short(task: Task, shape: ModelShape, name: str, dtype: torch.dtype, form: Form) -> None:
    seconds = sum(
        time_product(task, (SHORT_ROWS, outputs, inputs), dtype, form) for _, outputs, inputs in shape.linears
    )
    weights_bytes = shape.weights // shape.layers * (FLOAT8 if name.startswith("fp8") else dtype).itemsize
    task.record.add(
        what="short layer", model=shape.name, format=name, rows=SHORT_ROWS, gb_s=weights_bytes / seconds / 1e9
    )


def time_product(task: Task, sizes: tuple[int, int, int], dtype: torch.dtype, form: Form) -> float:
    """`sizes` are rows, outputs and inputs."""
    rows, outputs, inputs = sizes
    bytes_of_one = dtype.itemsize * inputs * (rows + outputs)
    turns = max(1, (TURNS_BYTES_DRY if task.is_dry else TURNS_BYTES) // bytes_of_one)
    products = [
        form(
            torch.randn(rows, inputs, device=task.device).to(dtype),
            (torch.randn(outputs, inputs, device=task.device) * inputs**-0.5).to(dtype),
        )
        for _ in range(min(turns, TURNS_MAX))
    ]

    @torch.inference_mode()
    def multiply_in_turn() -> None:
        for product in products:
            product()

    return measure_device_seconds(multiply_in_turn, task.device, choose_seconds(task)) / len(products)


def choose_seconds(task: Task) -> float:
    return SECONDS_DRY if task.is_dry else SECONDS


def plain(values: Tensor, weight: Tensor) -> Callable[[], object]:
    return partial(functional.linear, values, weight)


def private_row_wise(values: Tensor, weight: Tensor) -> Callable[[], object]:
    """One scale per row of the inputs (token) and per output channel."""
    return partial(private_product, quantize_to_float8(values), quantize_to_float8(weight), None, torch.bfloat16)


def public_row_wise(values: Tensor, weight: Tensor) -> Callable[[], object]:
    return partial(public_product, quantize_to_float8(values), quantize_to_float8(weight), None, torch.bfloat16)


def private_tensor_wise(values: Tensor, weight: Tensor) -> Callable[[], object]:
    one = torch.ones((), device=weight.device)
    return partial(
        torch._scaled_mm,
        *(values.to(FLOAT8), weight.to(FLOAT8).t(), one, one),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


FORMS_OF_FLOAT8: dict[str, Form] = {
    "fp8 by row, torch._scaled_mm": private_row_wise,
    "fp8 by row, functional.scaled_mm": public_row_wise,
    "fp8 by tensor, torch._scaled_mm": private_tensor_wise,
}


def best_tflops(rows: Sequence[Row], model: str, format_: str) -> float | None:
    """The rate of a layer's products in this format, the best form of it for fp8; None if it was not measured."""
    found = [
        row["tflops"]
        for row in rows
        if row["what"] == "layer" and row["model"] == model and row["format"].startswith(format_)
    ]
    return max(found, default=None)


def copy_gb_s(rows: Sequence[Row]) -> float | None:
    return next((row["gb_s"] for row in rows if row["what"] == "copy"), None)
