"""The quantizations of weights that Heddle makes, by their names in a Truss config. The settings of the engine, of
`heddle serve` and `heddle build`, and the schema of the config take one of them.
"""

from typing import Final, Literal

Quantization = Literal[
    "no_quant",
    "fp8",
    "fp8_kv",
    "fp8_mlp_only",
    "fp4",
    "fp4_kv",
    "fp4_mlp_only",
    "weights_int8",
    "smooth_quant",
]

NO_QUANT: Final = "no_quant"  # leaves the weights as the checkpoint stores them
