"""The call counts of another process can be read while it runs."""

import os
import subprocess
import sys
from pathlib import Path

from tests.bench.bench_inputs import COUNTING, read_counts

PROGRAM = """
import threading
def work():
    for _ in range(7):
        len([])
        step()
def step(): ...
work()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(flush=True)
input()
"""


def test_calls_of_all_threads_are_counted_in_a_process_that_knows_nothing_of_it(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(COUNTING), "BENCH_CALL_COUNTS": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        counts = read_counts(tmp_path / str(process.pid))
        process.stdin.close()
    assert counts.calls["<string>:step"] == 14
    assert counts.calls["<string>:work"] == 2
    assert counts.c_calls >= 14
