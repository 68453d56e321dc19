"""Speeds up the import of torch, which takes most of a pod's start. `engine_svc.__main__` calls this.

A fifth of that time goes to loading the shared library of PyTorch's operators. The dynamic linker does that on another
core, while the main thread imports Python code.
"""

import ctypes
import importlib.util
import os
import threading
from pathlib import Path


def load_libraries_in_background() -> None:
    """Loads the libraries in the same order as `import torch`, which then finds them loaded. If this fails, `import
    torch` loads them or raises the error. Returns at once."""
    spec = importlib.util.find_spec("torch")
    dlopen = getattr(ctypes.CDLL(None), "dlopen", None)
    if spec is None or not spec.origin or dlopen is None:
        return
    folder = Path(spec.origin).parent / "lib"
    dlopen.restype = ctypes.c_void_p

    def load() -> None:
        # A foreign function call releases the GIL; ctypes.CDLL does not. Neither library runs Python code.
        dlopen(os.fsencode(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL)
        dlopen(os.fsencode(folder / "libtorch_cpu.so"), os.RTLD_NOW)

    threading.Thread(target=load, name="torch libraries", daemon=True).start()
