"""The attention kernel compiles for every kind of card, and fits into its shared memory. No GPU is needed for that."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]

# Bytes that a block may have, by compute capability, from the CUDA programming guide.
SHARED_MAX = {75: 64 << 10, 80: 163 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10}


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
    shared: dict[str, int] = json.loads(done.stdout)
    assert shared
    assert not {variant: size for variant, size in shared.items() if size > SHARED_MAX[capability]}
