"""The processes below a process, by the module that each runs. For tests and benchmarks, on Linux."""

from pathlib import Path


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def module_of(pid: int) -> str:
    """engine_svc of `python -m engine_svc`; otherwise the program's name."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name


def running(pid: int, module: str) -> list[int]:
    """Descendants that run `python -m module`."""
    return [child for child in descendants(pid) if module_of(child) == module]


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
