"""`import torch` uses the libraries that a pod loads in the background."""

import subprocess
import sys

CODE = """
import threading
from engine_svc.torch_import import load_libraries_in_background
load_libraries_in_background()
[loading] = [thread for thread in threading.enumerate() if thread.name == "torch libraries"]
loading.join()
maps = open("/proc/self/maps").read()
assert "libtorch_cpu.so" in maps and "libtorch_python.so" not in maps
import torch
assert torch.ones(2, 2).matmul(torch.ones(2, 2)).sum() == 8
"""


def test_torch_uses_libraries_loaded_in_the_background() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=120)
