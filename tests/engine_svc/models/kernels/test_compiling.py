"""The row-wise kernels compile for every generation of cards, without one."""

import os
import subprocess
import sys

import pytest

# Turing (T4), Ampere (A100), Ada (L4), Hopper and Blackwell.
KERNELS = {75: 12, 80: 12, 89: 17, 90: 17, 100: 17}


@pytest.mark.slow
@pytest.mark.parametrize("capability", KERNELS)
def test_kernels_compile(capability: int) -> None:
    command = [sys.executable, "-m", "tests.engine_svc.models.kernels.compile_kernels", str(capability)]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == KERNELS[capability]
