"""Memory that a process keeps is not cleared by the kernel again."""

import platform
import subprocess
import sys

import pytest

COUNT_PAGES = """
import resource, sys
from heddle.freed_memory import keep_freed_memory
keep_freed_memory(int(sys.argv[1]))
def fill(): [bytearray(4 << 20) for _ in range(3)]
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def new_pages(kept: int) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT_PAGES, str(kept)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_blocks_within_the_limit_need_no_new_pages() -> None:
    assert new_pages(64 << 20) < 1000
    assert new_pages(128 << 10) > 10_000
