"""What a compiled kernel uses of a GPU. `compile_attention` and `compile_kernels` ask for it."""

import re
import subprocess
import tempfile
from typing import Any

from triton import knobs


def resources(compiled: Any) -> dict[str, int]:
    """Bytes: "shared" memory of a block, and the "stack" of a thread, where it keeps what its registers cannot hold."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [stack] = re.findall(r"STACK:(\d+)", usage)
    return {"shared": compiled.metadata.shared, "stack": int(stack)}
