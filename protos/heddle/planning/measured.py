"""What gateway and tokenizer cost, as measured: the defaults of `heddle plan`, which flags replace.

2026-11-24, 2 cores of an AMD EPYC with AVX512_BF16 (a shared virtual machine), Python 3.11.7, all-MiniLM-L6-v2's
tokenizer, vectors of 384 components in base64, loaded: tests/bench/RESULTS.md, "Scale", made by
`python -m tests.bench.bench_scale --costs`. A machine that is twice as fast halves them all.
"""

GATEWAY_REQUEST_US = 106.0
GATEWAY_INPUT_US = 22.0
GATEWAY_TOKEN_NS = 67.0
TOKENIZER_REQUEST_US = 67.0
TOKENIZER_INPUT_US = 47.0
TOKENIZER_TOKEN_NS = 1580.0

# Assumed, not measured here: a hop within one data centre, and what a GPU makes of its peak on packed batches of short
# texts. bench_engine measures the latter on the GPU at hand.
NETWORK_US = 150.0
EFFICIENCY = 0.4
# About ten kernels, of five microseconds each.
LAUNCH_US_PER_LAYER = 50.0
