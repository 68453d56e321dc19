"""Pods freeze, or crash on an input. Callers of other inputs notice at most a delay."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.quarantine import GROUPS_MAX
from tests.processes import running
from tests.system.served import served
from tests.system.test_kill import Load

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

ANSWERED_S_MAX = 60
# Streams of silent pods stay open: then only hedges help their callers.
PATIENCE = """
import sys
if "tokenizer_svc" in sys.orig_argv:
    import tokenizer_svc
    import heddle.rpc.pod
    heddle.rpc.pod.SILENCE_S_MAX = 3600
"""
# The engines below crash on this word.
POISON, POISON_ID = "poison", 9947
CRASH = f"""
import os, sys
if "engine_svc" in sys.orig_argv:
    from engine_svc.backends.simulated import SimulatedBackend
    run = SimulatedBackend.run
    def run_or_crash(self, batch, cores=0):
        if (batch.token_ids == {POISON_ID}).any():
            with open(os.environ["CRASHES"], "a") as crashes:
                crashes.write("x")
            os._exit(1)
        return run(self, batch, cores)
    SimulatedBackend.run = run_or_crash
"""


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def patched(folder: Path, patch: str) -> dict[str, str]:
    """Variables with which each process runs the patch first."""
    (folder / "sitecustomize.py").write_text(patch)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


async def test_requests_of_a_frozen_engine_are_hedged(tmp_path: Path) -> None:
    flags = "--engine", "simulated", "--engines", "2", "--log-level", "error"
    async with served(*flags, **patched(tmp_path, PATIENCE)) as heddle, Load(heddle) as load:
        with frozen(running(heddle.pid, "engine_svc")[0]):
            for _ in range(3):
                async with asyncio.timeout(ANSWERED_S_MAX):
                    await load.progress_of_all()
        await load.progress()


async def test_an_input_that_crashes_engines_fails_after_two_and_its_neighbours_do_not(tmp_path: Path) -> None:
    crashes = tmp_path / "crashes"
    flags = "--engine", "simulated", "--engines", "2", "--log-level", "error"
    # Two crashes find an input, unless more than GROUPS_MAX are lost with it or it has been hedged.
    variables = {"CRASHES": str(crashes), "HEDDLE_TOKENIZER_ENGINES_HEDGE_SHARE": "0"}
    async with (
        served(*flags, **patched(tmp_path, CRASH), **variables) as heddle,
        Load(heddle, GROUPS_MAX // 3 - 1) as load,
    ):
        for expected in (2, 4):
            await load.progress_of_all()
            if expected == 2:
                answer = await load.http.post("/v1/embeddings", json={"model": "any", "input": POISON})
                assert answer.status_code == 500
                assert "two pods crashed" in answer.text
            else:
                with pytest.raises(HeddleError) as raised:
                    await load.clients[0].vectors([POISON])
                assert raised.value.kind is ErrorKind.INTERNAL
            assert len(crashes.read_text()) == expected
        await load.progress_of_all()
