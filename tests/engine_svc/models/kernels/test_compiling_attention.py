"""The attention kernel compiles for every kind of card, and fits into its registers and shared memory. No GPU is needed
for that."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]

# Bytes that a block may have, by compute capability, from the CUDA programming guide. All cards from 8.0 to 8.9 get the
# same code: an L4 has as much as this, an A100 more.
SHARED_MAX = {75: 64 << 10, 80: 99 << 10, 90: 227 << 10, 100: 227 << 10}

# Bytes of a thread that do not fit into its 255 registers of 4. So few cost less than a smaller tile.
STACK_MAX = 160


@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED_MAX)
def test_attention_compiles(capability: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine_svc.models.kernels.compile_attention", str(capability)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
    )
    assert done.returncode == 0, done.stderr
    taken: dict[str, dict[str, int]] = json.loads(done.stdout)
    assert taken
    for variant, bytes_of in taken.items():
        assert bytes_of["shared"] <= SHARED_MAX[capability], variant
        assert bytes_of["stack"] <= STACK_MAX, variant
