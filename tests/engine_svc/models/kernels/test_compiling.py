"""All kernels compile for every generation of cards, without one. The attention kernel fits into registers and shared
memory."""

import json
import os
import subprocess
import sys

import pytest

# The number of row-wise kernels, by compute capability: Turing (T4), Ampere (A100), Ada (L4), Hopper and Blackwell.
ROW_KERNELS = {75: 13, 80: 13, 89: 18, 90: 18, 100: 18}

# Bytes that a block may have, from the CUDA programming guide. All cards from 8.0 to 8.9 get the same code: an L4 has
# as much as this, an A100 more.
SHARED_MAX = {75: 64 << 10, 80: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10}

# Bytes of a thread that do not fit into its 255 registers of 4. So few cost less than a smaller tile.
STACK_MAX = 160


@pytest.mark.slow
@pytest.mark.parametrize("capability", ROW_KERNELS)
def test_kernels_compile(capability: int) -> None:
    command = [sys.executable, "-m", "tests.engine_svc.models.kernels.compile_kernels", str(capability)]
    path = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout)
    assert compiled["rows"] == ROW_KERNELS[capability]
    assert compiled["attention"]
    for variant, used in compiled["attention"].items():
        assert used["shared"] <= SHARED_MAX[capability], variant
        assert used["stack"] <= STACK_MAX, variant
