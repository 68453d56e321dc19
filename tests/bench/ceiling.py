"""The tokens per second that the matrix products of an encoder alone would allow. No engine can be faster.

Runs the four products of each layer in a row, each with its own weights, in the faster of two forms: plain, and
prepacked for the batch's size. Attention, activations and separate biases are left out. `engine` uses this.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

Product = Callable[[torch.Tensor], torch.Tensor]


class Products:
    """The products for batches of `tokens`."""

    def __init__(self, config: Mapping[str, Any], tokens: int, dtype: torch.dtype, *, prepacked: bool) -> None:
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        sizes = ((hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden))
        torch.manual_seed(0)
        self._inputs = {size: torch.randn(tokens, size, dtype=dtype) for size in (hidden, inner)}
        make = prepacked_product if prepacked else plain_product
        self._layers = [
            [
                (ins, make(torch.randn(outs, ins, dtype=dtype), torch.zeros(outs, dtype=dtype), tokens))
                for ins, outs in sizes
            ]
            for _ in range(config["num_hidden_layers"])
        ]

    @torch.inference_mode()
    def run(self) -> None:
        for layer in self._layers:
            for ins, product in layer:
                product(self._inputs[ins])


def plain_product(weight: torch.Tensor, bias: torch.Tensor, _: int) -> Product:
    return lambda x: torch.nn.functional.linear(x, weight, bias)


def prepacked_product(weight: torch.Tensor, bias: torch.Tensor, tokens: int) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, tokens)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def has_prepacked() -> bool:
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")
