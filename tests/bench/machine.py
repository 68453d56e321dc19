"""The machine of a run: processor, memory, versions, commit and date. The command and the report use it."""

import datetime as dt
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

# Of the processor's many flags, those that decide how fast matrices are multiplied.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16")
LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers", "grpcio", "protobuf", "granian", "numpy")


def described() -> dict[str, Any]:
    facts = processor_facts()
    flags = set(facts.get("flags", "").split())
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "processor": facts.get("model name", platform.machine()),
        "family, model, stepping": "/".join(facts.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "cores": len(os.sched_getaffinity(0)),
        "matrix instructions": [flag for flag in FLAGS if flag in flags],
        "cache": facts.get("cache size", "?"),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def processor_facts() -> dict[str, str]:
    """Reads the facts of the first core."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def commit() -> str:
    """Returns the commit, with a + if the tree has changes."""
    folder = Path(__file__).parent
    name = told(folder, "rev-parse", "--short=12", "HEAD")
    changed = told(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{name}+" if changed else name


def told(folder: Path, *question: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *question], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
